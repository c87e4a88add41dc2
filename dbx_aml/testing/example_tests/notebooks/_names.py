# Databricks notebook source
from pyspark.sql import functions as F

LATE_MINUTES = 15
