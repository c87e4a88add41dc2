"""A clock that goes forward only when code under test sleeps."""


class FakeClock:
    """Clock and sleep for code that waits."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Let the time pass."""
        self.sleeps.append(seconds)
        self.now_s += seconds
