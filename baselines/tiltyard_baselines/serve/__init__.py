"""The serving loop: a causal language model behind the `openai` and `native` HTTP protocols.

Theory of operation. The event loop of the web server parses, checks and tokenises requests (``protocol_*.py``,
``fields.py``) and hands them to one engine thread (``engine.py``) through a bounded queue. The engine batches
continuously: before every decode step the waiting requests fill free rows of the key-value cache (``cache.py``), and
a row leaves at the step that ends it. Only the engine thread touches the model (``runner.py``). The server binds
its port first and loads the model in the background; until then every endpoint answers 503.
"""
