"""The small package behind the fine-tuning course: data, training, evaluation.

Rooms, each importing only from those before it: runtime, data, plots, models, runs, training,
evaluation, scoreboard, exercises, widgets. `install` and `authoring` serve the two commands and the
maintainers. Importing this package is cheap: heavy libraries are imported where they are used.
"""
