"""A classifier as an ExecuTorch program, for phones: its layers are XNNPACK's, what XNNPACK lacks is ExecuTorch's own.

B = 1 image, V views.
"""

import copy
import io
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sightline.errors import ConfigError, RunError
from sightline.evaluation.exporting.answers import Answers
from sightline.evaluation.exporting.graph import OUTPUTS, ClassifierGraph, kind_of, why_not
from sightline.evaluation.exporting.integers import quiet
from sightline.inference.classifier import Classifier
from sightline.inference.views import VIEWS
from sightline_runtime.metadata import KEY, Metadata, parse_metadata, to_text

if TYPE_CHECKING:
    from executorch.exir import EdgeProgramManager, ExecutorchProgramManager
    from executorch.runtime import Runtime

__all__ = ["ProgramDraft"]

METHOD = "forward"
_REFUSED = re.compile(r"Operator torch\._ops\.([\w.]+) is not in Core ATen|Missing out variants: \{'([\w.:]+)'")

Array = np.ndarray[Any, Any]


class ProgramDraft:
    """A program that answers for one image at a time, and says what it is by a method named ``sightline``."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self.views = VIEWS[classifier.views]
        self.lowered = lower(classifier)

    def packed(self, metadata: Metadata | None = None) -> bytes:
        """Return the content of the file.

        Raises:
            ConfigError: an operator has no kernel, which is named.
        """
        from executorch.exir import EdgeCompileConfig, EdgeProgramManager

        texts = None if metadata is None else {KEY: to_text(metadata)}
        with _plain_words(self.classifier):  # what is emitted is changed on the way, so a copy is
            program = copy.deepcopy(self.lowered.exported_program())
            unchecked = EdgeCompileConfig(_check_ir_validity=False)  # as of what is lowered already
            emitted = EdgeProgramManager({METHOD: program}, texts, unchecked).to_executorch()
        if missing := _without_kernel(emitted):
            raise ConfigError(_no_operator(self.classifier, missing[0]))
        return bytes(emitted.buffer)

    def answers(self, content: bytes, pixels_NHWC: Array, rows: Array) -> Answers:
        """Ask a file in ExecuTorch's own runtime.

        Raises:
            RunError: it does not run.
        """
        _as_many_threads_as_torch()
        views_V = torch.arange(self.views)
        parts: dict[str, list[Array]] = {}
        try:
            asked = _runtime().load_program(content).load_method(METHOD)
            assert asked is not None
            for row in rows:
                answers = asked.execute([torch.from_numpy(pixels_NHWC[row : row + 1].copy()), views_V])
                for name, values in zip(OUTPUTS, answers, strict=False):
                    parts.setdefault(name, []).append(values.numpy())
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise RunError(f"the exported file does not run in ExecuTorch ({reason}); no file was written.") from error
        joined = {name: np.concatenate(values) for name, values in parts.items()}
        return Answers(joined["probabilities"].astype(np.float64), joined.get("unknown_score"))

    def read_back(self, content: bytes, where: str) -> Metadata:
        """Return what a file says of itself."""
        method = _runtime().load_program(content).load_method(KEY)
        assert method is not None
        return parse_metadata(method.execute([])[0], where)


def lower(classifier: Classifier) -> "EdgeProgramManager":
    """Lower a classifier to a program of one image and any number of its views.

    Args:
        classifier: on the CPU, in float32.
    Raises:
        ConfigError: its network has an operator that ExecuTorch does not have, or takes one number of views only.
    """
    with quiet():  # what it imports warns of what PyTorch will no longer have
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

    most = VIEWS[classifier.views]
    # XNNPACK refuses weights in the order that convolutions of PyTorch are fastest in; the classifier keeps its own
    graph = copy.deepcopy(ClassifierGraph(classifier)).to(memory_format=torch.contiguous_format).eval()
    pixels, views = torch.zeros(1, *classifier.resize, 3, dtype=torch.uint8), torch.zeros(most, dtype=torch.int64)
    count = {0: torch.export.Dim("V", min=1, max=most)} if most > 1 else None
    with _plain_words(classifier), torch.no_grad():
        exported = torch.export.export(graph, (pixels, views), dynamic_shapes=(None, count))
        return to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])


@contextmanager
def _plain_words(classifier: Classifier) -> Iterator[None]:
    """Turn whatever ends an export into a sentence; ExecuTorch raises all kinds."""
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if match := _REFUSED.search(str(cause)):
                raise ConfigError(_no_operator(classifier, match[1] or match[2])) from error
            cause = cause.__cause__
        raise ConfigError(why_not(error, classifier)) from error


def _no_operator(classifier: Classifier, operator: str) -> str:
    return (
        f"the network {kind_of(classifier)} has the operator {operator}, which ExecuTorch does not have; export a run"
        " with another network, or to .onnx."
    )


def _without_kernel(emitted: "ExecutorchProgramManager") -> list[str]:
    """Return the operators of a program that ExecuTorch's runtime has no kernel for."""
    known = _runtime().operator_registry.operator_names
    used = [one for plan in emitted.executorch_program.execution_plan for one in plan.operators]
    return sorted({name for one in used if (name := f"{one.name}.{one.overload}".rstrip(".")) not in known})


def _runtime() -> "Runtime":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that its interface is experimental is why its version is bounded
        from executorch.runtime import Runtime
    return Runtime.get()


def _as_many_threads_as_torch() -> None:
    """Set the threads of ExecuTorch, which looks the processor over and tells of it on the standard error."""
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool

    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere, redirect_stderr(io.StringIO()):
        os.dup2(nowhere.fileno(), 2)
        try:
            _unsafe_reset_threadpool(torch.get_num_threads())
        finally:
            os.dup2(kept, 2)
            os.close(kept)
