"""What each command does, to be called from Python as well: no click, nothing printed, results as records.

A module is a workflow, and its `run` the door: `search.run(search.SearchRequest(SearchOptions("digits")))`. They are
shown in docs/python.md. Importing this package imports none of them.
"""
