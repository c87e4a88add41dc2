"""Step 3, register: model URIs and the registration of model versions."""
