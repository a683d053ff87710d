package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"kelpie.dev/kelpie/cli/doctor"
)

// doctorCmd is one invocation of "kelpie doctor".
type doctorCmd struct {
	*session
	namespace string
	output    output
}

func newDoctor(s *session) *cobra.Command {
	d := &doctorCmd{session: s}
	cmd := &cobra.Command{
		Use:   "doctor [hpa/NAME]",
		Short: "Find the broken link between an application and its replicas, and the mend",
		Long: `doctor walks the chain layer by layer and stops at the first broken link:

  target, HPA, query   what the autoscaler asks for
  agent, intake        the way of a metric in
  backend, store       whether the metric and its tags are there
  application          whether it still sends
  provider, APIService the way of the value out
  HPA                  what Kubernetes makes of it

Without an argument it examines the installation and every HPA's own verdict;
with hpa/NAME it examines one autoscaler from end to end. It changes nothing.
Each line is "ok", "broken" or "skipped" (could not be looked at, and why).

Exit code 0: no link is broken; 1: one is, and its mend is printed.`,
		Example: `  kelpie doctor
  kelpie doctor hpa/test-metric-hpa -n test
  kelpie doctor hpa/test-metric-hpa -n test -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return d.run(cmd, args) },
	}
	cmd.Flags().StringVarP(&d.namespace, "namespace", "n", "", "namespace of the HPA (default: the kubeconfig context's)")
	d.output.flag(cmd)
	return cmd
}

// hpaName reads the argument: hpa/NAME, in any of the spellings kubectl knows.
func hpaName(arg string) (string, error) {
	kind, name, ok := strings.Cut(arg, "/")
	switch strings.ToLower(kind) {
	case "hpa", "horizontalpodautoscaler", "horizontalpodautoscalers", "horizontalpodautoscalers.autoscaling":
		if ok && name != "" && !strings.Contains(name, "/") {
			return name, nil
		}
	}
	return "", fmt.Errorf("%q is nothing that doctor examines; write hpa/NAME", arg)
}

func (d *doctorCmd) run(cmd *cobra.Command, args []string) error {
	o := doctor.Options{KelpieNamespace: d.kelpieNamespace, Namespace: d.namespace, Now: d.Now}
	if len(args) == 1 {
		name, err := hpaName(args[0])
		if err != nil {
			return err
		}
		o.HPA = name
	}
	cluster, err := d.connect()
	if err != nil {
		return err
	}
	if o.Namespace == "" {
		if o.Namespace, _, err = d.config().Namespace(); err != nil {
			return fmt.Errorf("read the namespace of the kubeconfig's context: %w", err)
		}
	}
	o.Objects, o.Access = cluster, cluster
	report := doctor.Run(cmd.Context(), o)
	if d.output == "json" {
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		err = enc.Encode(report)
	} else {
		err = printReport(cmd.OutOrStdout(), report)
	}
	if err == nil && !report.Healthy {
		err = &exit{code: exitBroken}
	}
	return err
}

// printReport writes one line a check, and the cause and mend of a broken one.
func printReport(w io.Writer, r *doctor.Report) error {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	var last doctor.Result
	for _, last = range r.Results {
		seen, _, _ := strings.Cut(last.Seen, "\n")
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\n", last.Outcome, last.Layer, seen)
	}
	_ = tw.Flush() // a Builder accepts all
	if r.Healthy {
		b.WriteString("\nno broken link\n")
	} else {
		if _, more, ok := strings.Cut(last.Seen, "\n"); ok {
			b.WriteString("\n" + indent(more) + "\n")
		}
		fmt.Fprintf(&b, "\nbroken: %s (check %s)\ncause:  %s\nmend:   %s\n", last.Layer, last.Check, last.Cause, last.Mend)
		if n := len(r.NotRun); n > 0 {
			fmt.Fprintf(&b, "\nThe %d checks behind it were not run.\n", n)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
