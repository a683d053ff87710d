package query_test

import (
	"testing"

	"kelpie.dev/kelpie/query/querytest"
)

func TestScripts(t *testing.T) {
	querytest.Run(t, "testdata", querytest.Base, func(*testing.T) querytest.Target {
		return querytest.OnStore(&querytest.Memory{})
	})
}
