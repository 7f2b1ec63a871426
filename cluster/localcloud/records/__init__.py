"""Records of Python object graphs as JSON, without code in them (docs/adr/0021).

`encoder` writes them, `decoder` reads them; `leaves` has the values without parts, `classes` the
classes that a record may name. Nothing here imports moto by itself.
"""
