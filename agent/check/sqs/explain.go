package sqs

import (
	"errors"
	"fmt"
	"strings"

	"github.com/aws/smithy-go"
)

// mends say what to do about the API's errors, by a part of their code.
var mends = []struct{ code, mend string }{
	{"Throttl", "the API limits the rate of requests; raise min_collection_interval"},
	{"RequestLimit", "the API limits the rate of requests; raise min_collection_interval"},
	{"NonExistentQueue", "there is no such queue in this region and account"},
	{"QueueDoesNotExist", "there is no such queue in this region and account"},
	{"InvalidClientTokenId", "the agent's AWS credentials are not valid"},
	{"UnrecognizedClient", "the agent's AWS credentials are not valid"},
	{"SignatureDoesNotMatch", "the agent's AWS secret key is not valid"},
	{"ExpiredToken", "the agent's AWS credentials have expired"},
}

// explain says what failed and what to do. action is the permission that the
// request needs.
func explain(err error, attempted, action string) error {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		if strings.Contains(err.Error(), "credentials") {
			return fmt.Errorf("%s: the AWS SDK finds no credentials: give the agent's service account a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (%w)", attempted, err)
		}
		return fmt.Errorf("%s: %w", attempted, err)
	}
	mend := ""
	if strings.Contains(api.ErrorCode(), "AccessDenied") {
		mend = "; allow the agent's role " + action
	}
	for _, m := range mends {
		if strings.Contains(api.ErrorCode(), m.code) {
			mend = "; " + m.mend
		}
	}
	return fmt.Errorf("%s: %s: %s%s", attempted, api.ErrorCode(), api.ErrorMessage(), mend)
}
