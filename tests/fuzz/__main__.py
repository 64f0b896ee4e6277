"""Fuzz the parsers that a peer reaches.

python -m tests.fuzz                            each target for 30 seconds
python -m tests.fuzz pdus files --seconds 600   these targets
python -m tests.fuzz identifiers --atheris      with coverage, if atheris is installed, until it is stopped

A finding is printed with its input, and the exit status is 1. Further arguments of ``--atheris`` go to libFuzzer.
"""

import argparse
import contextlib
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))


def main() -> int:
    """Run as the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz the parsers.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all, if none is named")
    parser.add_argument("--seconds", type=float, default=30, help="for each target (default: 30)")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: 1)")
    parser.add_argument("--atheris", action="store_true", help="guided by coverage; one target")
    arguments, rest = parser.parse_known_args()
    atheris: Any = None
    if arguments.atheris:
        try:
            import atheris  # type: ignore[import-untyped,no-redef]  # and it may be absent
        except ImportError:
            parser.error("atheris is not installed: pip install atheris, or leave out --atheris")
    elif rest:
        parser.error(f"unknown: {' '.join(rest)}")
    include = ["netdicom_tx"]
    with atheris.instrument_imports(include) if atheris else contextlib.nullcontext():
        from fuzz.targets import TARGETS
    names = arguments.targets or list(TARGETS)
    if unknown := set(names) - TARGETS.keys():
        parser.error(f"unknown: {', '.join(unknown)}; expected {', '.join(TARGETS)}")
    if atheris is None:
        return with_mutations({name: TARGETS[name] for name in names}, arguments)
    if len(names) != 1:
        parser.error(f"--atheris runs one target; name it: {', '.join(TARGETS)}")
    return with_atheris(atheris, TARGETS[names[0]], rest)


def with_mutations(targets: dict[str, Any], arguments: argparse.Namespace) -> int:
    """Run targets one after the other with the built-in runner."""
    from fuzz.runner import MEMORY, run

    failed = False
    for name, target in targets.items():
        report = run(target, seed=arguments.seed, seconds=arguments.seconds)
        print(
            f"{name:18} {report.inputs:8} inputs  {report.ends:4} ends  slowest {report.slowest:6.3f} s "
            f"({len(report.slowest_input)} octets)  memory +{report.grown >> 20} MiB",
            flush=True,
        )
        for finding in report.findings:
            print(f"  {finding.problem}\n    {finding.data[:2000].hex()}", flush=True)
        failed |= bool(report.findings) or report.grown > MEMORY
    return int(failed)


def with_atheris(atheris: Any, target: Any, arguments: list[str]) -> int:
    """Run a target under libFuzzer, which ends the process."""
    warnings.simplefilter("ignore")  # those of pydicom about odd values

    def one(data: bytes) -> None:
        try:
            target.parse(data)
        except target.errors:
            return
        except Exception:
            traceback.print_exc()
            raise

    corpus = Path(tempfile.mkdtemp(prefix="fuzz-"))
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    limit = [] if any(each.startswith("-max_len") for each in arguments) else ["-max_len=65536"]
    atheris.Setup([sys.argv[0], *limit, *arguments, str(corpus)], one)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
