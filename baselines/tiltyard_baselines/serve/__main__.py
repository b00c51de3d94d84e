"""Serve a model: ``python -m tiltyard_baselines.serve --model DIR [--adapter DIR] [--port 8000]``."""

import argparse
import logging
import os
import sys
import threading
from pathlib import Path

import uvicorn

from tiltyard_baselines.serve.app import Backend, build_app
from tiltyard_baselines.serve.loading import DTYPES, QUANTISATIONS

logger = logging.getLogger(__name__)

DEFAULT_PORT = 8000


def main() -> int:
    """Bind, load in the background, serve until told to stop; return 1 when the model cannot be loaded."""
    options = _parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Read by the OpenMP runtime when torch is imported; more threads than cores only slow a small model down.
    os.environ.setdefault("OMP_NUM_THREADS", str(options.threads))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning burns the CPU time of a container with a small share
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    backend = Backend(options.name)
    config = uvicorn.Config(build_app(backend), host=options.host, port=options.port, log_level="warning", workers=1)
    server = uvicorn.Server(config)
    failures: list[Exception] = []
    arguments = (options, backend, server, failures)
    threading.Thread(target=_load, args=arguments, name="loader", daemon=True).start()
    server.run()
    if backend.engine is not None:
        backend.engine.stop()
    return 1 if failures else 0


def _load(options: argparse.Namespace, backend: Backend, server: uvicorn.Server, failures: list[Exception]) -> None:
    try:
        import torch  # noqa: PLC0415  slow: the port is bound meanwhile

        from tiltyard_baselines.serve.decoding import recorder_for  # noqa: PLC0415
        from tiltyard_baselines.serve.engine import Engine  # noqa: PLC0415
        from tiltyard_baselines.serve.loading import load_model  # noqa: PLC0415
        from tiltyard_baselines.serve.runner import ModelRunner  # noqa: PLC0415

        torch.set_num_threads(options.threads)
        device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        model, tokenizer = load_model(
            options.model,
            options.adapter,
            device,
            options.dtype,
            quantise=options.quantise,
            on_kernels=options.kernels,
        )
        record = recorder_for(device) if options.graphs else None
        backend.engine = Engine(
            ModelRunner(model, tokenizer, options.batch_rows, options.context_tokens, record=record)
        )
        logger.info("ready on port %d (%s, %d threads)", options.port, device, options.threads)
    except Exception as error:  # the boundary of the thread: whatever it was, the process must end and say so
        logger.exception("cannot load the model")
        failures.append(error)
        server.should_exit = True


def _port() -> int:
    text = os.environ.get("TILTYARD_PORT", str(DEFAULT_PORT))
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise SystemExit(f"TILTYARD_PORT is {text!r}; set it to a port number from 1 to 65535")
    return int(text)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tiltyard_baselines.serve", description="Serve a language model.")
    parser.add_argument("--model", type=Path, required=True, help="folder of a checkpoint")
    parser.add_argument("--adapter", type=Path, help="folder of a peft adapter; merged at load, unless --quantise")
    parser.add_argument(
        "--quantise", choices=QUANTISATIONS, help="keep the base in four bits and the adapter beside it"
    )
    parser.add_argument(
        "--kernels",
        action=argparse.BooleanOptionalAction,
        help="run the layers on tiltyard_kernels; default: with CUDA, if quantised or of 1024 columns and more",
    )
    parser.add_argument(
        "--graphs",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="decode by CUDA graphs on the first GPU",
    )
    parser.add_argument("--name", default="squire", help="the model's name in GET /v1/models")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=None, help="default: TILTYARD_PORT, or 8000")
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")
    parser.add_argument("--dtype", choices=DTYPES, help="default: float32 on a CPU, bfloat16 on CUDA")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-rows", type=int, default=32, help="prompts that are decoded together")
    parser.add_argument("--context-tokens", type=int, default=2048, help="cap on the model's own context")
    options = parser.parse_args()
    options.port = _port() if options.port is None else options.port
    return options


if __name__ == "__main__":
    sys.exit(main())
