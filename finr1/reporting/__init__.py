"""The parts of the report: what is read from a run (`gather`, `samples`), charts (`charts`), and the page (`page`)."""
