"""What the server of workers imports before it forks them; apart, since the command line asks for it before others."""

PRELOADED = ("rarevox.pipeline.inference.calls.warm",)
