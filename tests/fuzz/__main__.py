"""Fuzz the parsers that a peer reaches.

python -m tests.fuzz                            each target for 30 seconds
python -m tests.fuzz pdus files --seconds 600   these targets
python -m tests.fuzz identifiers --atheris      with coverage, if atheris is installed, until it is stopped

A finding is printed with its input, and the exit status is 1. Further arguments of ``--atheris`` go to libFuzzer.
"""

import argparse
import sys
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from fuzz.runner import MEMORY, run
from fuzz.targets import LARGEST, TARGETS, Target


def main() -> int:
    """Run as the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz the parsers.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=float, default=30, help="for each target (default: 30)")
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: 1)")
    parser.add_argument("--atheris", action="store_true", help="guided by coverage; one target")
    arguments, rest = parser.parse_known_args()
    names = arguments.targets or list(TARGETS)
    if unknown := set(names) - TARGETS.keys():
        parser.error(f"unknown: {', '.join(unknown)}; expected {', '.join(TARGETS)}")
    if arguments.atheris:
        if len(names) != 1:
            parser.error("--atheris runs one target; name it")
        return with_atheris(TARGETS[names[0]], rest)
    if rest:
        parser.error(f"unknown: {' '.join(rest)}")
    failed = False
    for name in names:
        report = run(TARGETS[name], seed=arguments.seed, seconds=arguments.seconds)
        print(
            f"{name:18} {report.inputs:8} inputs  {report.ends:4} ends  slowest {report.slowest:6.3f} s "
            f"({len(report.slowest_input)} octets)  memory +{report.grown >> 20} MiB",
            flush=True,
        )
        for finding in report.findings:
            print(f"  {finding.problem}\n    {finding.data[:2000].hex()}", flush=True)
        failed |= bool(report.findings) or report.grown > MEMORY
    return int(failed)


def with_atheris(target: Target, arguments: list[str]) -> int:
    """Run a target under libFuzzer."""
    try:
        import atheris  # type: ignore[import-untyped]  # and it may be absent
    except ImportError:
        print("atheris is not installed: pip install atheris, or leave out --atheris")
        return 2

    def one(data: bytes) -> None:
        try:
            target.parse(data[:LARGEST])
        except target.errors:
            return
        except Exception:
            traceback.print_exc()
            raise

    import tempfile

    corpus = Path(tempfile.mkdtemp(prefix="fuzz-"))
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.instrument_all()
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], one)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
