package quiesce

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Domain is the domain of the ErrorInfo of all errors of the contract.
const Domain = "quiesce.v1"

// Violation is one field of a request that cannot be used, by its path in the request.
type Violation struct {
	Field, Description string
}

// Problem is an error, decoded. Tell errors apart by Reason; the message is for people.
type Problem struct {
	Code    codes.Code
	Message string
	// Reason is a name of ErrorReason without its prefix, such as "APPLICATION_NOT_FOUND"; empty when the error did not
	// come from a scheduler or hook (a lost connection, a deadline).
	Reason     string
	Metadata   map[string]string
	Violations []Violation
	// RetryAfter is how long to wait before the same call is repeated; 0 when there is no use in repeating it.
	RetryAfter time.Duration
}

// ProblemOf decodes what a call returned. Of an error that no call returned it knows the text only.
func ProblemOf(err error) Problem {
	said := status.Convert(err)
	problem := Problem{Code: said.Code(), Message: said.Message()}
	for _, detail := range said.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.Domain == Domain {
				problem.Reason, problem.Metadata = detail.Reason, detail.Metadata
			}
		case *errdetails.BadRequest:
			for _, found := range detail.FieldViolations {
				problem.Violations = append(problem.Violations, Violation{found.Field, found.Description})
			}
		case *errdetails.RetryInfo:
			problem.RetryAfter = detail.RetryDelay.AsDuration()
		}
	}
	return problem
}

func (p Problem) String() string {
	var text strings.Builder
	text.WriteString(p.Code.String())
	if p.Reason != "" {
		text.WriteString(" / " + p.Reason)
	}
	text.WriteString(": " + p.Message)
	for _, found := range p.Violations {
		fmt.Fprintf(&text, "\n  %s: %s", found.Field, found.Description)
	}
	return text.String()
}
