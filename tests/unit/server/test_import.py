"""Importing the server is cheap: no torch, no vLLM."""

import subprocess
import sys


def test_the_app_imports_neither_torch_nor_vllm() -> None:
    heavy = "{'torch', 'vllm', 'transformers'} & set(sys.modules)"
    code = f"import sys, medmoe.server.app, medmoe.server.__main__; sys.exit(str({heavy}) if {heavy} else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
