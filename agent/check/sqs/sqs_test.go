package sqs

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"kelpie.dev/kelpie/agent/check"
	"kelpie.dev/kelpie/agent/check/fetch"
	"kelpie.dev/kelpie/metric"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service speaks the AWS JSON protocol of SQS, as far as the check asks.
type service struct {
	*httptest.Server
	t *testing.T

	mu       sync.Mutex
	queues   map[string][3]int // visible, not visible, delayed
	failures []failure         // of the next requests
	actions  []string          // asked, in order
	noARN    bool
}

type failure struct {
	status        int
	code, message string
}

func newService(t *testing.T) *service {
	s := &service{t: t, queues: map[string][3]int{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	action := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AmazonSQS.")
	s.actions = append(s.actions, action)
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	if auth := r.Header.Get("Authorization"); !strings.Contains(auth, "Credential=AKIDEXAMPLE/") || !strings.Contains(auth, "/eu-central-1/sqs/aws4_request") {
		s.fail(w, failure{403, "InvalidClientTokenId", "The security token is invalid."})
		return
	}
	if len(s.failures) > 0 {
		f := s.failures[0]
		s.failures = s.failures[1:]
		s.fail(w, f)
		return
	}
	var in struct {
		QueueName, QueueNamePrefix, QueueUrl, NextToken string //nolint:revive // the API's own names
		AttributeNames                                  []string
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		s.t.Errorf("%s: %v", action, err)
	}
	switch action {
	case "GetQueueUrl":
		if _, ok := s.queues[in.QueueName]; !ok {
			s.fail(w, failure{400, "com.amazonaws.sqs#QueueDoesNotExist", "The specified queue does not exist."})
			return
		}
		s.answer(w, map[string]any{"QueueUrl": s.url(in.QueueName)})
	case "ListQueues":
		s.list(w, in.QueueNamePrefix, in.NextToken)
	case "GetQueueAttributes":
		name := in.QueueUrl[strings.LastIndexByte(in.QueueUrl, '/')+1:]
		q, ok := s.queues[name]
		if !ok {
			s.fail(w, failure{400, "com.amazonaws.sqs#QueueDoesNotExist", "The specified queue does not exist."})
			return
		}
		all := map[string]string{
			"ApproximateNumberOfMessages": fmt.Sprint(q[0]), "ApproximateNumberOfMessagesNotVisible": fmt.Sprint(q[1]),
			"ApproximateNumberOfMessagesDelayed": fmt.Sprint(q[2]), "QueueArn": "arn:aws:sqs:eu-central-1:123456789012:" + name,
		}
		out := map[string]string{}
		for _, n := range in.AttributeNames {
			if n != "QueueArn" || !s.noARN {
				out[n] = all[n]
			}
		}
		s.answer(w, map[string]any{"Attributes": out})
	default:
		s.t.Errorf("unexpected action %q", action)
	}
}

// list answers two queues a page.
func (s *service) list(w http.ResponseWriter, prefix, token string) {
	var names []string
	for name := range s.queues {
		if strings.HasPrefix(name, prefix) && name > token {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	out := map[string]any{}
	if len(names) > 2 {
		names = names[:2]
		out["NextToken"] = names[1]
	}
	var urls []string
	for _, name := range names {
		urls = append(urls, s.url(name))
	}
	out["QueueUrls"] = urls
	s.answer(w, out)
}

func (s *service) url(name string) string { return s.URL + "/123456789012/" + name }

func (s *service) answer(w http.ResponseWriter, v any) {
	if err := json.NewEncoder(w).Encode(v); err != nil {
		s.t.Error(err)
	}
}

func (s *service) fail(w http.ResponseWriter, f failure) {
	w.WriteHeader(f.status)
	s.answer(w, map[string]string{"__type": f.code, "message": f.message})
}

func trial(t *testing.T, values map[string]any) *check.Trial {
	t.Helper()
	tr, err := check.NewTrial(Kind(), check.Instance{Values: values, Access: fetch.Access{File: true}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.Close)
	return tr
}

func credentials(t *testing.T) {
	for name, value := range map[string]string{
		"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_PROFILE": "",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": t.TempDir() + "/none", "AWS_SHARED_CREDENTIALS_FILE": t.TempDir() + "/none",
	} {
		t.Setenv(name, value)
	}
}

func describe(series []metric.Series) (out []string) {
	for _, s := range series {
		out = append(out, fmt.Sprintf("%s{%s} %s %v", strings.TrimPrefix(s.Name, "aws.sqs.approximate_number_of_messages_"), s.Tags, s.Type, s.Points[0].Value))
	}
	slices.Sort(out)
	return out
}

func TestDepths(t *testing.T) {
	credentials(t)
	s := newService(t)
	s.queues = map[string][3]int{"jobs-a": {7, 2, 1}, "jobs-b": {0, 0, 0}, "jobs-c": {3, 0, 0}, "mail": {5, 0, 0}, "other": {9, 9, 9}}
	tr := trial(t, map[string]any{
		"region": "eu-central-1", "endpoint_url": s.URL, "queue_names": []string{"mail"}, "queue_urls": []string{"https://sqs.eu-central-1.amazonaws.com/123456789012/jobs-a"},
		"queue_name_prefix": "jobs-b", "tags": []string{"team:a"},
	})
	series, _, err := tr.Run(t.Context(), time.Unix(100, 0))
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for queue, d := range map[string][3]int{"jobs-a": {7, 2, 1}, "jobs-b": {0, 0, 0}, "mail": {5, 0, 0}} {
		for i, name := range []string{"visible", "not_visible", "delayed"} {
			want = append(want, fmt.Sprintf("%s{aws_account:123456789012,queuename:%s,region:eu-central-1,team:a} gauge %d", name, queue, d[i]))
		}
	}
	slices.Sort(want)
	if d := cmp.Diff(want, describe(series)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	s.actions = nil
	if _, _, err := tr.Run(t.Context(), time.Unix(115, 0)); err != nil {
		t.Fatal(err)
	}
	if slices.Contains(s.actions, "GetQueueUrl") {
		t.Errorf("the URL of a queue was asked for twice: %v", s.actions)
	}
}

func TestPrefixReadsEveryPage(t *testing.T) {
	credentials(t)
	s := newService(t)
	for i := range 5 {
		s.queues[fmt.Sprint("q", i)] = [3]int{i, 0, 0}
	}
	s.noARN = true
	tr := trial(t, map[string]any{"region": "eu-central-1", "endpoint_url": s.URL, "queue_name_prefix": "q"})
	series, _, err := tr.Run(t.Context(), time.Unix(100, 0))
	if err != nil || len(series) != 15 {
		t.Fatalf("%d series, %v", len(series), err)
	}
	if want := metric.NewTags("queuename:q0", "region:eu-central-1", "aws_account:123456789012"); !cmp.Equal(want, series[0].Tags) {
		t.Errorf("tags without an ARN: %v, want %v", series[0].Tags, want)
	}
}

func TestFailures(t *testing.T) {
	throttled := failure{400, "ThrottlingException", "Rate exceeded"}
	denied := failure{403, "AccessDeniedException", "User is not authorized"}
	for _, c := range []struct {
		name     string
		values   map[string]any
		failures []failure
		series   int
		want     []string // parts of the error
	}{
		{"throttled once", map[string]any{"queue_names": []string{"mail"}}, []failure{throttled}, 3, nil},
		{"throttled for long", map[string]any{"queue_names": []string{"mail"}}, []failure{throttled, throttled, throttled}, 0, []string{"find the queue mail: ThrottlingException", "raise min_collection_interval"}},
		{"a server that fails", map[string]any{"queue_names": []string{"mail"}}, []failure{{500, "InternalFailure", "x"}}, 3, nil},
		{"denied", map[string]any{"queue_names": []string{"mail"}}, []failure{denied}, 0, []string{"allow the agent's role sqs:GetQueueUrl"}},
		{"denied the list", map[string]any{"queue_name_prefix": "m", "queue_urls": []string{"http://x/1/mail"}}, []failure{denied}, 3, []string{"allow the agent's role sqs:ListQueues"}},
		{"one of two is not there", map[string]any{"queue_names": []string{"nowhere", "mail"}}, nil, 3, []string{"find the queue nowhere", "there is no such queue in this region and account"}},
		{"gone", map[string]any{"queue_urls": []string{"http://x/1/gone"}}, nil, 0, []string{"read the queue http://x/1/gone", "there is no such queue"}},
		{"another region", map[string]any{"queue_names": []string{"mail"}, "region": "us-east-1"}, nil, 0, []string{"the agent's AWS credentials are not valid"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			credentials(t)
			s := newService(t)
			s.queues["mail"] = [3]int{1, 2, 3}
			s.failures = c.failures
			values := map[string]any{"region": "eu-central-1", "endpoint_url": s.URL}
			for k, v := range c.values {
				values[k] = v
			}
			series, _, err := trial(t, values).Run(t.Context(), time.Unix(100, 0))
			if len(series) != c.series {
				t.Errorf("%d series, want %d", len(series), c.series)
			}
			if len(c.want) == 0 && err != nil {
				t.Error(err)
			}
			for _, part := range c.want {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("error %v, want %q", err, part)
				}
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the secret key is in the error: %v", err)
			}
		})
	}
}

func TestWithoutCredentialsOrRegion(t *testing.T) {
	credentials(t)
	s := newService(t)
	t.Setenv("AWS_ENDPOINT_URL_SQS", s.URL)
	if _, _, err := trial(t, map[string]any{"queue_names": []string{"mail"}}).Run(t.Context(), time.Unix(1, 0)); err == nil || !strings.Contains(err.Error(), `set the key "region"`) {
		t.Errorf("without a region: %v", err)
	}
	t.Setenv("AWS_REGION", "eu-central-1")
	s.queues["mail"] = [3]int{1, 0, 0}
	// As a pod's annotation would ask: the endpoint is the agent's own setting.
	tr, err := check.NewTrial(Kind(), check.Instance{Values: map[string]any{"queue_names": []string{"mail"}}})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	if series, _, err := tr.Run(t.Context(), time.Unix(1, 0)); err != nil || len(series) != 3 {
		t.Errorf("by the environment: %v %v", series, err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	if _, _, err := trial(t, map[string]any{"queue_names": []string{"mail"}}).Run(t.Context(), time.Unix(1, 0)); err == nil || !strings.Contains(err.Error(), "finds no credentials") {
		t.Errorf("without credentials: %v", err)
	}
}

func TestConfiguration(t *testing.T) {
	for _, c := range []struct {
		values map[string]any
		file   bool
		want   string
	}{
		{map[string]any{}, true, `one of the keys "queue_names"`},
		{map[string]any{"queue_names": "x"}, true, `key "queue_names": expected a list`},
		{map[string]any{"queue_urls": []string{"x"}}, true, `key "queue_urls": expected a URL`},
		{map[string]any{"queue_names": []string{"x"}, "endpoint_url": "x"}, true, `key "endpoint_url": expected a URL`},
		{map[string]any{"queue_names": []string{"x"}, "endpoint_url": "http://evil.example"}, false, `a pod's annotation may not send the agent's credentials elsewhere`},
		{map[string]any{"queue_names": []string{"x"}, "region": "evil.example/#"}, false, `key "region"`},
	} {
		_, err := check.NewTrial(Kind(), check.Instance{Values: c.values, Access: fetch.Access{File: c.file}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.values, err, c.want)
		}
	}
}
