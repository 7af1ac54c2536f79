"""What a model is worth: fixed test cases, scores against true images, speed, and a report.

`protocol` reads the cases of a packed teacher pack, `reenactment` runs a model on them, `score`
measures pictures and faces, `summary` averages, `speed` times, `picture` and `report` show, and
`evaluator` puts them together; `eval.py` is the command line.
"""
