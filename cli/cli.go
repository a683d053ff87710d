// Package cli is the command line for people: query, status, doctor, version.
//
// It owns flags, texts and exit codes. What is true of an installation it asks
// packages release and doctor, and the query API; it holds no knowledge of its own.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/tools/clientcmd"

	"kelpie.dev/kelpie/cli/release"
)

// Exit codes, as documented in the root command's help.
const (
	exitOK     = 0
	exitBroken = 1
	exitUsage  = 2
)

// Options is what the command line takes from its surroundings.
type Options struct {
	Version string           // shown by "kelpie version"
	APIKey  string           // DD_API_KEY; used with --url and --site only
	AppKey  string           // DD_APP_KEY; used with --url and --site only
	Out     io.Writer        // results
	Err     io.Writer        // errors
	Now     func() time.Time // nil means time.Now
}

// An exit is an error with an exit code of its own. An empty text means that
// the result, already printed, says what is wrong.
type exit struct {
	code int
	text string
}

func (e *exit) Error() string { return e.text }

// Main runs the command line and returns the exit code.
func Main(ctx context.Context, args []string, o Options) int {
	if o.Now == nil {
		o.Now = time.Now
	}
	root := newRoot(o)
	root.SetArgs(args)
	root.SetOut(o.Out)
	root.SetErr(o.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	code := exitUsage
	var e *exit
	if errors.As(err, &e) {
		code = e.code
	}
	if text := err.Error(); text != "" {
		_, _ = fmt.Fprintln(o.Err, "kelpie: "+text)
	}
	return code
}

func newRoot(o Options) *cobra.Command {
	s := &session{Options: o}
	root := &cobra.Command{
		Use:   "kelpie",
		Short: "Ask Kelpie how your autoscaling is doing, and what is wrong with it",
		Long: `kelpie asks an installation of Kelpie for values, for its state, and for what
is wrong. It only reads. It finds the installation through your kubeconfig, with
your own rights; nothing has to be exposed.

Something does not scale?   kelpie doctor hpa/NAME -n NAMESPACE
Is the value right?         kelpie query 'avg:my.metric{kube_namespace:shop}'
Is everything up?           kelpie status

Exit codes: 0 fine; 1 something is broken, or there is no data; 2 wrong usage,
a syntax error, or no answer from the cluster.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	f := root.PersistentFlags()
	f.StringVar(&s.kubeconfig, "kubeconfig", "", "kubeconfig file (default: $KUBECONFIG, then ~/.kube/config)")
	f.StringVar(&s.context, "context", "", "kubeconfig context (default: the current one)")
	f.StringVar(&s.kelpieNamespace, "kelpie-namespace", "", "namespace that Kelpie is installed in (default: the cluster is searched)")
	root.AddCommand(newQuery(s), newStatus(s), newDoctor(s), newVersion(s))
	return root
}

func newVersion(s *session) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this command",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "kelpie "+s.Version)
			return err
		},
	}
}

// session is what the commands of one invocation share.
type session struct {
	Options
	kubeconfig, context, kelpieNamespace string
}

// config reads the kubeconfig as kubectl does.
func (s *session) config() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = s.kubeconfig
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: s.context})
}

func (s *session) connect() (*release.Cluster, error) {
	cfg, err := s.config().ClientConfig()
	if err != nil {
		return nil, &exit{exitUsage, fmt.Sprintf("no cluster to ask: %v\nGive --kubeconfig FILE or set KUBECONFIG; or, to query without Kubernetes, give --url.", err)}
	}
	return release.Connect(cfg)
}

// output is the value of -o.
type output string

func (o *output) flag(cmd *cobra.Command) {
	*o = "table"
	cmd.Flags().VarP(o, "output", "o", "table, or json for machines")
}

// wideFlag offers a table with long lines as well.
func (o *output) wideFlag(cmd *cobra.Command) {
	*o = "table"
	cmd.Flags().VarP(wide{o}, "output", "o", "table, wide with queries and without bound, or json for machines")
}

// wide is an output that may be "wide".
type wide struct{ *output }

// Type names the flag's values in the help.
func (wide) Type() string { return "table|wide|json" }

// Set implements pflag.Value.
func (w wide) Set(v string) error {
	if v != "table" && v != "wide" && v != "json" {
		return errors.New("expected table, wide or json")
	}
	*w.output = output(v)
	return nil
}

func (o *output) String() string { return string(*o) }

// Type names the flag's values in the help.
func (o *output) Type() string { return "table|json" }

// Set implements pflag.Value.
func (o *output) Set(v string) error {
	if v != "table" && v != "json" {
		return errors.New("expected table or json")
	}
	*o = output(v)
	return nil
}
