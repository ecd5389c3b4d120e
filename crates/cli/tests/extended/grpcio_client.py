#!/usr/bin/env python3
"""One call of a scheduler with grpcio, which is gRPC's C core and BoringSSL, and what came of it as JSON.

The messages are made of the descriptor set of the contract, so nothing has to be generated.
"""

import argparse
import json
import pathlib

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.rpc import error_details_pb2
from grpc_status import rpc_status

# Longer than any call takes; a call that hangs is DEADLINE_EXCEEDED.
LIMIT = 20


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("method", help="SERVICE/METHOD")
    parser.add_argument("--descriptors", type=pathlib.Path, required=True)
    parser.add_argument("--request", default="{}")
    parser.add_argument("--ca", type=pathlib.Path)
    parser.add_argument("--cert", type=pathlib.Path)
    parser.add_argument("--key", type=pathlib.Path)
    parser.add_argument("--token-file", type=pathlib.Path)
    return parser.parse_args()


def contract(path):
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes()).file:
        pool.Add(file)
    return pool


def channel(args):
    if not args.ca:
        return grpc.insecure_channel(args.target)
    read = lambda path: path.read_bytes() if path else None
    credentials = grpc.ssl_channel_credentials(read(args.ca), read(args.key), read(args.cert))
    if args.token_file:
        token = grpc.access_token_call_credentials(args.token_file.read_text().strip())
        credentials = grpc.composite_channel_credentials(credentials, token)
    return grpc.secure_channel(args.target, credentials)


def details(error):
    """The details of a status, by their types' names."""
    status = rpc_status.from_call(error)
    found = {}
    for detail in status.details if status else []:
        for known in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo, error_details_pb2.BadRequest):
            message = known()
            if detail.Unpack(message):
                found[known.DESCRIPTOR.name] = json_format.MessageToDict(message)
    return found


def main():
    args = arguments()
    pool = contract(args.descriptors)
    service, name = args.method.split("/")
    method = pool.FindServiceByName(service).FindMethodByName(name)
    kind = message_factory.GetMessageClass
    with channel(args) as connection:
        call = connection.unary_unary(
            f"/{args.method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=kind(method.output_type).FromString,
        )
        try:
            answer = call(json_format.Parse(args.request, kind(method.input_type)()), timeout=LIMIT)
            outcome = {"code": "OK", "answer": json_format.MessageToDict(answer)}
        except grpc.RpcError as error:
            outcome = {"code": error.code().name, "message": error.details(), "details": details(error)}
    print(json.dumps(outcome))


main()
