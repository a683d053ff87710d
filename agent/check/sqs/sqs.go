// Package sqs is the check of Amazon SQS queues' depths, by the AWS API or
// anything that speaks it.
//
// It owns which queues are asked and what the answers are called. Credentials,
// request signing and retries are the AWS SDK's.
package sqs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"kelpie.dev/kelpie/agent/check"
	"kelpie.dev/kelpie/agent/check/fetch"
)

// Limits of one instance.
const (
	maxQueues      = 500 // asked in one run
	requestTimeout = 10 * time.Second
)

var regionName = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)

// Kind is the check named sqs. A queue is on no host, so several agents that
// watch one submit one context.
func Kind() check.Kind { return check.Kind{Name: "sqs", NoHost: true, New: newCheck} }

type config struct {
	Region   string   `json:"region"`       // "" means the SDK's own: AWS_REGION, then the profile
	Endpoint string   `json:"endpoint_url"` // "" means the SDK's own: AWS_ENDPOINT_URL_SQS, then AWS's
	Names    []string `json:"queue_names"`
	URLs     []string `json:"queue_urls"`
	Prefix   string   `json:"queue_name_prefix"` // all queues whose name begins so
	Account  string   `json:"aws_account"`       // that owns queue_names; "" means the credentials'
}

type queues struct {
	c      config
	urls   map[string]string // by name, as SQS told
	http   *http.Client
	client *sqs.Client // nil before the first run
}

func newCheck(i *check.Instance) (check.Check, error) {
	var c config
	if err := i.Decode(&c); err != nil {
		return nil, err
	}
	if len(c.Names)+len(c.URLs) == 0 && c.Prefix == "" {
		return nil, errors.New(`one of the keys "queue_names", "queue_urls" and "queue_name_prefix" is missing: expected the queues to watch`)
	}
	if c.Region != "" && !regionName.MatchString(c.Region) {
		return nil, errors.New(`key "region": expected a name such as eu-central-1`) // it becomes part of a host's name
	}
	if c.Endpoint != "" {
		if !i.Access.File {
			return nil, errors.New(`key "endpoint_url": a pod's annotation may not send the agent's credentials elsewhere: set AWS_ENDPOINT_URL_SQS for the agent, or put the check into a file of conf.d`)
		}
		if _, err := fetch.URL("endpoint_url", c.Endpoint); err != nil {
			return nil, err
		}
	}
	for _, text := range c.URLs {
		if _, err := fetch.URL("queue_urls", text); err != nil {
			return nil, err
		}
	}
	return &queues{c: c, urls: map[string]string{}, http: &http.Client{
		Timeout: requestTimeout,
		// A signed request is for the one it was signed for.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func (q *queues) Close() { q.http.CloseIdleConnections() }

// Run asks for each queue. A queue that cannot be asked costs no other.
func (q *queues) Run(ctx context.Context, s *check.Sender) error {
	if err := q.connect(ctx); err != nil {
		return err
	}
	urls, err := q.find(ctx)
	errs := []error{err}
	if len(urls) > maxQueues {
		errs = append(errs, fmt.Errorf("%d queues are asked for, and only the first %d are read: name fewer", len(urls), maxQueues))
		urls = urls[:maxQueues]
	}
	for _, u := range urls {
		errs = append(errs, q.read(ctx, s, u))
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// connect sets the SDK up. It reads the environment, profiles and, when there
// is nothing else, the instance's metadata, so it belongs to a run.
func (q *queues) connect(ctx context.Context) error {
	if q.client != nil {
		return nil
	}
	client := awshttp.NewBuildableClient()
	var options []func(*awsconfig.LoadOptions) error
	if q.c.Region != "" {
		options = append(options, awsconfig.WithRegion(q.c.Region))
	}
	c, err := awsconfig.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return fmt.Errorf("set up the AWS SDK: %w", err)
	}
	if c.Region == "" {
		return errors.New(`no AWS region: set the key "region", or AWS_REGION for the agent`)
	}
	if built, ok := c.HTTPClient.(*awshttp.BuildableClient); ok {
		client = built // with AWS_CA_BUNDLE
	}
	q.http.Transport = client.GetTransport()
	q.client = sqs.NewFromConfig(c, func(o *sqs.Options) {
		o.HTTPClient = q.http // of our own, so that its connections can be closed
		if q.c.Endpoint != "" {
			o.BaseEndpoint = aws.String(q.c.Endpoint)
		}
	})
	return nil
}

// find returns the URLs of the queues to ask. Those of names are remembered.
func (q *queues) find(ctx context.Context) (urls []string, err error) {
	urls = append(urls, q.c.URLs...)
	var errs []error
	for _, name := range q.c.Names {
		u, ok := q.urls[name]
		if !ok {
			input := &sqs.GetQueueUrlInput{QueueName: aws.String(name)}
			if q.c.Account != "" {
				input.QueueOwnerAWSAccountId = aws.String(q.c.Account)
			}
			out, err := q.client.GetQueueUrl(ctx, input)
			if err != nil {
				errs = append(errs, explain(err, "find the queue "+name, "sqs:GetQueueUrl"))
				continue
			}
			u = aws.ToString(out.QueueUrl)
			q.urls[name] = u
		}
		urls = append(urls, u)
	}
	if q.c.Prefix == "" {
		return urls, errors.Join(errs...)
	}
	pages := sqs.NewListQueuesPaginator(q.client, &sqs.ListQueuesInput{QueueNamePrefix: aws.String(q.c.Prefix), MaxResults: aws.Int32(1000)})
	for pages.HasMorePages() && len(urls) <= maxQueues {
		page, err := pages.NextPage(ctx)
		if err != nil {
			errs = append(errs, explain(err, "list the queues that begin with "+q.c.Prefix, "sqs:ListQueues"))
			break
		}
		urls = append(urls, page.QueueUrls...)
	}
	return urls, errors.Join(errs...)
}

// depths are the attributes that are told, each a gauge of messages.
var depths = []struct {
	attribute types.QueueAttributeName
	metric    string
}{
	{types.QueueAttributeNameApproximateNumberOfMessages, "aws.sqs.approximate_number_of_messages_visible"},
	{types.QueueAttributeNameApproximateNumberOfMessagesNotVisible, "aws.sqs.approximate_number_of_messages_not_visible"},
	{types.QueueAttributeNameApproximateNumberOfMessagesDelayed, "aws.sqs.approximate_number_of_messages_delayed"},
}

func (q *queues) read(ctx context.Context, s *check.Sender, queue string) error {
	names := []types.QueueAttributeName{types.QueueAttributeNameQueueArn}
	for _, d := range depths {
		names = append(names, d.attribute)
	}
	out, err := q.client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: aws.String(queue), AttributeNames: names})
	if err != nil {
		if gone, ok := errors.AsType[*types.QueueDoesNotExist](err); ok {
			q.forget(queue)
			err = gone
		}
		return explain(err, "read the queue "+fetch.Redact(queue), "sqs:GetQueueAttributes")
	}
	tags := queueTags(queue, out.Attributes[string(types.QueueAttributeNameQueueArn)], q.client.Options().Region)
	for _, d := range depths {
		text, ok := out.Attributes[string(d.attribute)]
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("read the queue %s: %s is not a number", fetch.Redact(queue), d.attribute)
		}
		s.Gauge(d.metric, n, tags...)
	}
	return nil
}

// forget makes the next run ask again where a queue is.
func (q *queues) forget(queue string) {
	for name, u := range q.urls {
		if u == queue {
			delete(q.urls, name)
		}
	}
}

// queueTags returns the tags of a queue: those of its ARN
// (arn:aws:sqs:<region>:<account>:<name>), or of its URL without one.
func queueTags(queue, arn, region string) []string {
	var name, account string
	if parts := strings.Split(arn, ":"); len(parts) == 6 {
		region, account, name = parts[3], parts[4], parts[5]
	} else if u, err := url.Parse(queue); err == nil {
		path := strings.Split(strings.Trim(u.Path, "/"), "/")
		name = path[len(path)-1]
		if len(path) > 1 {
			account = path[len(path)-2]
		}
	}
	tags := []string{"queuename:" + name, "region:" + region}
	if account != "" {
		tags = append(tags, "aws_account:"+account)
	}
	return tags
}
