"""The generated contract, package quiesce.v1: see quiesce.proto for one name to import it by."""
