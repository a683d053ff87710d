package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"kelpie.dev/kelpie/cli/served"
	"kelpie.dev/kelpie/clusteragent/shadow"
	"kelpie.dev/kelpie/health"
)

func shadowCommand() *cobra.Command {
	var addr string
	var asJSON bool
	c := &cobra.Command{
		Use: "shadow", Short: "Show where the shadow source differs from the main one, the worst query first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var r shadow.Report
			if err := health.Fetch(cmd.Context(), addr, "/shadow", &r); err != nil {
				return fmt.Errorf("%w (nothing is compared unless KELPIE_SHADOW_SOURCE is set)", err)
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(r)
			}
			return printShadow(cmd.OutOrStdout(), r)
		},
	}
	c.Flags().StringVar(&addr, "addr", local(), "health address of the cluster agent")
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	return c
}

// verdicts says on one line how many queries there are of each verdict.
func verdicts(s shadow.Summary) string {
	out := served.Shadow{Main: string(s.Main), Shadow: string(s.Shadow), Queries: s.Queries, Verdicts: map[string]int{}}
	for verdict, n := range s.Verdicts {
		out.Verdicts[string(verdict)] = n
	}
	return out.Text()
}

// printShadow writes a report as a table; what the sources say of errors follows it.
func printShadow(w io.Writer, r shadow.Report) error {
	var b, said strings.Builder
	fmt.Fprintf(&b, "%s\nSince %s, each query every %gs; agreeing are values within %g%% of the larger, or %g.\n\n",
		verdicts(r.Summary), r.Since.Format(time.RFC3339), r.Period, r.Tolerance.Relative*100, r.Tolerance.Absolute)
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(tw, "VERDICT\tMAIN\tSHADOW\tDIFFERENCE\tMEAN\tOUTSIDE\tWORST\tWORST AT\tCOMPARED\tMETRICS\tQUERY")
	for _, row := range r.Rows {
		difference, mean, outside, worst, at := "-", "-", "-", "-", "-"
		if row.Last != nil {
			difference, mean, outside = percent(row.Last.Difference), percent(row.Bias), fmt.Sprintf("%.1f%%", row.Outside*100)
		}
		if row.Worst != nil {
			worst, at = percent(row.Worst.Difference), row.Worst.At.Format(time.RFC3339)
		}
		var compared uint64
		for _, n := range row.Outcomes {
			compared += n
		}
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", row.Verdict, number(row.Main), number(row.Shadow), difference, mean, outside,
			worst, at, compared, cmp.Or(strings.Join(row.Metrics, ", "), "-"), row.Query)
		for _, side := range []struct{ name, err string }{{string(r.Main), row.Main.Error}, {string(r.Shadow), row.Shadow.Error}} {
			if side.err != "" {
				fmt.Fprintf(&said, "\n%s\n  %s: %s\n", row.Query, side.name, side.err)
			}
		}
	}
	if err := tw.Flush(); err != nil { // to memory: it holds what the writes above met
		return err
	}
	_, err := io.WriteString(w, b.String()+said.String())
	return err
}

func percent(part float64) string { return fmt.Sprintf("%+.1f%%", part*100) }

func number(n shadow.Newest) string {
	if n.Value == nil {
		return "-"
	}
	return strconv.FormatFloat(*n.Value, 'g', 6, 64)
}
