"""Migrates an application and follows it to its end: python migrate.py APPLICATION CLUSTER [SCHEDULER]"""

import os
import sys

import grpc

import quiesce
from quiesce.v1 import types_pb2

application, cluster, *url = sys.argv[1:]
with quiesce.connect(
    *url, token_file=os.environ.get("QUIESCE_TOKEN_FILE"), ca=os.environ.get("QUIESCE_CA"), deadline=10
) as client:
    try:
        operation = client.migrate(application, cluster, reason="the example")
        for event in client.follow(operation.name):
            if event.HasField("operation"):
                operation = event.operation
            print(f"{quiesce.name_of(operation.state)}: {event.message}", flush=True)
    except grpc.RpcError as error:
        sys.exit(f"migrate: {quiesce.Problem.of(error)}")
sys.exit(0 if operation.state == types_pb2.Operation.STATE_SUCCEEDED else 3)
