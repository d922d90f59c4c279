"""One error type for everything a user can do wrong or meet.

Every error says *what* happened, *why*, and *how to fix it*, and carries a stable code from
:data:`ERROR_CODES`, which also fixes the exit status of the command line.
"""

from __future__ import annotations

from typing import Final

EXIT_VERIFIED: Final = 0  #: done and verified
EXIT_NEGATIVE: Final = 1  #: done, the verdict is negative
EXIT_BAD_INPUT: Final = 2  #: bad input or usage
EXIT_TARGET_CANNOT: Final = 3  #: the target cannot run this network
EXIT_BACKEND_FAILED: Final = 4  #: a backend failed
EXIT_INCONCLUSIVE: Final = 5  #: the verdict is inconclusive
EXIT_INTERRUPTED: Final = 130  #: interrupted by the user

#: Every error code with its exit status and its meaning; ``docs/errors.md`` is generated from it.
ERROR_CODES: Final[dict[str, tuple[int, str]]] = {
    "E-USAGE": (EXIT_BAD_INPUT, "an option or argument has a value that is not allowed"),
    "E-INPUT-MISSING": (EXIT_BAD_INPUT, "an input file does not exist or cannot be opened"),
    "E-CHECKPOINT-FORMAT": (EXIT_BAD_INPUT, "a file is not a checkpoint of this project"),
    "E-CHECKPOINT-UNSAFE": (EXIT_BAD_INPUT, "a checkpoint asks to run code while it is loaded"),
    "E-CHECKPOINT-SIZE": (EXIT_BAD_INPUT, "a checkpoint is larger than the size limit"),
    "E-CHECKPOINT-CONFIG": (EXIT_BAD_INPUT, "the configuration inside a checkpoint is not valid"),
    "E-CHECKPOINT-TENSORS": (EXIT_BAD_INPUT, "tensors of a checkpoint are missing or wrong"),
    "E-GRAPH-FILE": (EXIT_BAD_INPUT, "a file is not a NIR graph"),
    "E-GRAPH-AUDIT": (EXIT_BAD_INPUT, "a NIR graph has errors; all of them are listed"),
    "E-GRAPH-LOOP": (EXIT_BAD_INPUT, "a cycle in a graph has no defined order of evaluation"),
    "E-NET-FILE": (EXIT_BAD_INPUT, "a file is not a .net network of lava-dl"),
    "E-ONNX-FILE": (EXIT_BAD_INPUT, "a file is not an ONNX model that can be read"),
    "E-ONNX-OPERATORS": (EXIT_BAD_INPUT, "an ONNX model has operators that no graph expresses"),
    "E-RECORDING-FILE": (EXIT_BAD_INPUT, "a file is not a recording"),
    "E-DATA-FILE": (EXIT_BAD_INPUT, "a data or label file cannot be read"),
    "E-DATA-SHAPE": (EXIT_BAD_INPUT, "the data do not have the shape that the network takes"),
    "E-DATA-VALUES": (EXIT_BAD_INPUT, "the data hold NaN, infinite or otherwise unusable values"),
    "E-DATA-EMPTY": (EXIT_BAD_INPUT, "there are no data"),
    "E-DATA-LABELS": (EXIT_BAD_INPUT, "the labels do not fit the data or the network"),
    "E-NOISE": (EXIT_BAD_INPUT, "the noise is missing, has the wrong shape or too few bits"),
    "E-RECIPE": (EXIT_BAD_INPUT, "no training recipe has this name"),
    "E-DEVICE": (EXIT_BAD_INPUT, "the requested compute device is not available"),
    "E-ENERGY-METER": (EXIT_BAD_INPUT, "no energy counter of this machine can be read"),
    "E-ENERGY-WINDOW": (EXIT_BAD_INPUT, "an energy measurement has too few or too short windows"),
    "E-OUT-EXISTS": (EXIT_BAD_INPUT, "the output path exists already"),
    "E-OUT-UNWRITABLE": (EXIT_BAD_INPUT, "the output path cannot be written"),
    "E-OUT-DISK-FULL": (EXIT_BAD_INPUT, "the disk is full"),
    "E-TARGET-NONCAUSAL": (EXIT_TARGET_CANNOT, "a non-causal network cannot run step by step"),
    "E-TARGET-UNSUPPORTED": (EXIT_TARGET_CANNOT, "the target has no way to run a node"),
    "E-TARGET-CAPACITY": (EXIT_TARGET_CANNOT, "the target has less room than the network needs"),
    "E-INTERNAL": (EXIT_BACKEND_FAILED, "a defect of this tool; please report it"),
    "E-OVERFLOW": (EXIT_TARGET_CANNOT, "an integer left its register; the policy is 'error'"),
    "E-SWEEP-WORKER": (EXIT_BACKEND_FAILED, "a worker process of a sweep was killed"),
    "E-LAVA-ENVIRONMENT": (EXIT_BACKEND_FAILED, "there is no environment that runs Lava"),
    "E-LAVA-SETUP": (EXIT_BACKEND_FAILED, "the Lava environment could not be made"),
    "E-LAVA-TIMEOUT": (EXIT_BACKEND_FAILED, "the Lava run passed its time limit and was ended"),
    "E-LAVA-CRASH": (EXIT_BACKEND_FAILED, "the Lava run ended with an error or was killed"),
    "E-ONNX-RUNTIME": (EXIT_BACKEND_FAILED, "ONNX Runtime is not there, or does not run a model"),
    "E-READER-SETUP": (EXIT_BACKEND_FAILED, "the environment of a NIR reader could not be made"),
    "E-READER-RUN": (EXIT_BACKEND_FAILED, "the environment of a NIR reader does not work"),
    "E-LAVA-RESULT": (EXIT_BACKEND_FAILED, "the Lava run left no valid result"),
}


class PspikeError(Exception):
    """An error with a stable code, what happened, why, how to fix it, and where.

    Args:
        code: key of :data:`ERROR_CODES`.
        what: one sentence: what happened.
        why: the facts that conflict (numbers, names); may be empty.
        fix: what to do about it; may be empty only where nothing can be done.
        where: the file, node or tensor concerned, if there is one.
    """

    def __init__(
        self, code: str, what: str, *, why: str = "", fix: str = "", where: str | None = None
    ) -> None:
        if code not in ERROR_CODES:
            raise KeyError(f"unknown error code {code}")
        self.code = code
        self.what = what
        self.why = why
        self.fix = fix
        self.where = where
        super().__init__(str(self))

    @property
    def exit_status(self) -> int:
        """Exit status of the command line for this error."""
        return ERROR_CODES[self.code][0]

    def to_dict(self) -> dict[str, str | None]:
        """The error as plain data, for ``--json``."""
        return {
            "code": self.code,
            "what": self.what,
            "why": self.why,
            "fix": self.fix,
            "where": self.where,
        }

    def __str__(self) -> str:
        lines = [f"{self.code}: {self.what}"]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.why:
            lines.append(f"  why:   {self.why}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.code, self.what, self.why, self.fix, self.where)


def _rebuild(code: str, what: str, why: str, fix: str, where: str | None) -> PspikeError:
    return PspikeError(code, what, why=why, fix=fix, where=where)
