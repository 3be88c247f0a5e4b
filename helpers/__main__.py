"""The commands: `python -m helpers start | test | check | fetch | pack | assess | build`.

Pythons too old for the course must still be able to read this file and say so: no newer syntax here.
"""

import sys


def main(arguments):
    """Run one command and return its exit code."""
    if sys.version_info < (3, 11):  # noqa: UP036
        print("The course needs Python 3.11 to 3.14; this one is " + sys.version.split()[0] + ".")
        print("Install one of them from python.org, then run `python3.14 -m helpers start` with it.")
        return 1
    import argparse

    from . import install
    from .runtime import CourseError

    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a Windows console may lack a character that we print
    parser = argparse.ArgumentParser(prog="python -m helpers", description="The fine-tuning course.")
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("start", help="set everything up, check it, open the lessons in JupyterLab")
    start.add_argument("--no-lab", action="store_true", help="stop before JupyterLab opens")
    start.add_argument("--no-browser", action="store_true", help="start JupyterLab, but open no browser")
    commands.add_parser("test", help="set up what the tests need and run pytest with what follows")
    commands.add_parser("check", help="only the preflight: OK or FAIL with the remedy, item by item")
    commands.add_parser("fetch", help="only bring the model to disk")
    commands.add_parser("pack", help="write course-model.zip for learners whose network is poor")
    assess = commands.add_parser("assess", help="check an assignment handed in, or a folder of them into a CSV")
    assess.add_argument("folder", help="a submission, or a folder that holds a folder for each")
    assess.add_argument("--csv", help="the table to write; by default assessment.csv in the folder")
    assess.add_argument("--rerun", type=int, default=100, help="rows that each adapter answers again; 0 for none")
    build = commands.add_parser("build", help="make lessons/ from the masters in solutions/")
    build.add_argument("names", nargs="*", help="masters to build, such as 07; without names, all")
    how = build.add_mutually_exclusive_group()
    for flag, text in {
        "no-execute": "keep the outputs that are there", "check": "only say what is out of date or against the rules",
        "record": "also write minutes and memory onto the lesson's card",
    }.items():  # fmt: skip
        how.add_argument(f"--{flag}", dest="how", action="store_const", const=flag, default="execute", help=text)
    build.add_argument("--runs", help="folder whose runs the lessons find, as after the lessons before")
    try:
        if arguments[:1] == ["test"]:  # all that follows belongs to pytest, options included
            return install.test(arguments[1:])
        chosen = parser.parse_args(arguments)
        if chosen.command == "start":
            return install.start(lab=not chosen.no_lab, browser=not chosen.no_browser)
        if chosen.command == "check":
            return install.check()
        handed_on = install.inside(arguments)  # the rest needs the course's packages
        if handed_on is not None:
            return handed_on
        if chosen.command == "build":
            from . import authoring

            return authoring.main(chosen.names, chosen.how, chosen.runs)
        elif chosen.command == "assess":
            from . import rubric

            return rubric.main(chosen.folder, chosen.csv, chosen.rerun)
        else:
            from . import models

            models.pack() if chosen.command == "pack" else print("Model:", models.fetch())
        return 0
    except (CourseError, OSError) as error:  # a full or locked disk needs no traceback
        print("\n" + str(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if arguments[:1] != ["fetch"]:  # that is a stage of `start`, which says it once for both
            again = " ".join(["python -m helpers", *arguments])
            print("\nStopped; what is finished is kept. Go on with `" + again + "`.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
