package hookkit

import (
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
	"time"

	quiesce "quiesce.dev/go"
)

// What is worth repeating is so after this time.
const repeatAfter = time.Second

// refusal makes the error of a call with the details that the contract wants. The reason is one of ErrorReason, without
// prefix; metadata are pairs of keys and values.
func refusal(code codes.Code, reason, message string, metadata ...string) error {
	info := &errdetails.ErrorInfo{Reason: reason, Domain: quiesce.Domain, Metadata: map[string]string{}}
	for i := 0; i+1 < len(metadata); i += 2 {
		info.Metadata[metadata[i]] = metadata[i+1]
	}
	details := []protoadapt.MessageV1{info}
	switch {
	case code == codes.FailedPrecondition:
		violation := &errdetails.PreconditionFailure_Violation{Type: reason, Description: message}
		details = append(details, &errdetails.PreconditionFailure{Violations: []*errdetails.PreconditionFailure_Violation{violation}})
	case reason == "SHUTDOWN_IN_PROGRESS" || reason == "NOT_SERVING":
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(repeatAfter)})
	}
	return with(code, message, details...)
}

// badField refuses a request for one field.
func badField(path, description string) error {
	violation := &errdetails.BadRequest_FieldViolation{Field: path, Description: description}
	return with(codes.InvalidArgument, path+" "+description,
		&errdetails.ErrorInfo{Reason: "INVALID_FIELD", Domain: quiesce.Domain},
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{violation}})
}

func with(code codes.Code, message string, details ...protoadapt.MessageV1) error {
	bare := status.New(code, message)
	if detailed, err := bare.WithDetails(details...); err == nil {
		return detailed.Err()
	}
	// Details that cannot be encoded are left out; the code is what counts.
	return bare.Err()
}
