"""Click commands: parse, call, print. The only place that echoes."""
