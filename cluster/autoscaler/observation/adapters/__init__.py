"""Adapters of frameworks: each reads from a framework's own API what the framework wants.

| Adapter | Module | Reads |
|---|---|---|
| spark | `spark` | the driver's REST API: configuration, executors, stages |
| marathon | `marathon` | the launch queue of any Marathon |
| chronos | `chronos` | jobs, and their states as CSV |
| metronome | `metronome` | jobs, and the queue of runs |
| airflow | `airflow` | the queue of AVENTER's Airflow provider |
| hook | `demand_hook` | `GET /demand`, which any framework can serve |

`choice` finds the adapter of a framework, `address_guard` decides which addresses may be asked,
`answers` decodes what a framework says. `client` and `readings` are the shells: they ask all
frameworks beside the passes of the planner. See docs/frameworks.md.
"""
