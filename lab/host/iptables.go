package host

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// families are the two packet filters; each has its own chains.
var families = []string{"iptables", "ip6tables"}

// prefixes mark the chains that kubelet, kube-proxy, the CNI plug-ins and the lab make.
var prefixes = []string{"KUBE-", "CNI-", "KELPIE-LAB"}

// AllowBridge lets packets from and to the bridge pass whatever the machine's
// own policy is (Docker, for one, drops what it forwards and does not know).
func AllowBridge(ctx context.Context, bridge string) error {
	script := strings.Join([]string{
		"*filter",
		":KELPIE-LAB - [0:0]",
		"-A KELPIE-LAB -i " + bridge + " -j ACCEPT",
		"-A KELPIE-LAB -o " + bridge + " -j ACCEPT",
		"-I FORWARD -j KELPIE-LAB",
		"-I INPUT -i " + bridge + " -j KELPIE-LAB",
		"COMMIT", "",
	}, "\n")
	if _, err := run(ctx, script, "iptables-restore", "--wait=5", "--noflush"); err != nil {
		return fmt.Errorf("let packets pass the bridge: %w", err)
	}
	return nil
}

// nodeChains lists the chains in both families that carry one of our prefixes.
func nodeChains(ctx context.Context) (map[string][]string, error) {
	chains := map[string][]string{}
	for _, family := range families {
		saved, err := run(ctx, "", family+"-save")
		if err != nil {
			return nil, fmt.Errorf("list packet filter rules: %w", err)
		}
		if found := ourChains(saved, nil); len(found) > 0 {
			chains[family] = found
		}
	}
	return chains, nil
}

// removeChains deletes every chain with our prefixes, and the rules that lead
// there, except chains named in keep. It repeats because a rule may still be
// written by a process that is just ending.
func removeChains(ctx context.Context, keep map[string][]string) error {
	for _, family := range families {
		saved, err := run(ctx, "", family+"-save")
		if err != nil {
			return fmt.Errorf("list packet filter rules: %w", err)
		}
		script := removal(saved, keep[family])
		if script == "" {
			continue
		}
		if _, err := run(ctx, script, family+"-restore", "--wait=5", "--noflush"); err != nil {
			return fmt.Errorf("remove the lab's packet filter rules: %w", err)
		}
	}
	return nil
}

// removal turns the output of iptables-save into the input for
// iptables-restore --noflush that deletes our chains and nothing else. Nothing
// to delete gives an empty text.
func removal(saved string, keep []string) string {
	var script strings.Builder
	for _, table := range tables(saved) {
		var flush, unlink, drop []string
		mine := map[string]bool{}
		for _, chain := range table.chains {
			if ours(chain, keep) {
				mine[chain] = true
				flush = append(flush, ":"+chain+" - [0:0]")
				drop = append(drop, "-X "+chain)
			}
		}
		for _, rule := range table.rules {
			words := split(rule)
			if len(words) < 2 || mine[words[1]] {
				continue // goes with its chain
			}
			if mine[target(words)] {
				unlink = append(unlink, "-D"+strings.TrimPrefix(rule, "-A"))
			}
		}
		if len(drop) == 0 {
			continue
		}
		lines := slices.Concat([]string{"*" + table.name}, flush, unlink, drop, []string{"COMMIT"})
		script.WriteString(strings.Join(lines, "\n") + "\n")
	}
	return script.String()
}

func ourChains(saved string, keep []string) []string {
	found := map[string]bool{}
	for _, table := range tables(saved) {
		for _, chain := range table.chains {
			if ours(chain, keep) {
				found[chain] = true
			}
		}
	}
	return sorted(found)
}

func ours(chain string, keep []string) bool {
	if slices.Contains(keep, chain) {
		return false
	}
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(chain, p) })
}

type table struct {
	name   string
	chains []string
	rules  []string // as printed, "-A CHAIN …"
}

func tables(saved string) []table {
	var all []table
	for line := range strings.Lines(saved) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "*"); ok {
			all = append(all, table{name: name})
			continue
		}
		if len(all) == 0 {
			continue
		}
		current := &all[len(all)-1]
		switch {
		case strings.HasPrefix(line, ":"):
			chain, _, _ := strings.Cut(line[1:], " ")
			current.chains = append(current.chains, chain)
		case strings.HasPrefix(line, "-A "):
			current.rules = append(current.rules, line)
		}
	}
	return all
}

// target returns the chain that a rule jumps or goes to.
func target(words []string) string {
	for i, w := range words[:len(words)-1] {
		if w == "-j" || w == "-g" {
			return words[i+1]
		}
	}
	return ""
}

// split cuts a rule into words. A quoted comment is one word, so that nothing
// in it can be taken for an option.
func split(rule string) []string {
	var words []string
	var word strings.Builder
	quoted, escaped, open := false, false, false
	for _, r := range rule {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case quoted && r == '\\':
			escaped = true
		case r == '"':
			quoted, open = !quoted, true
		case r == ' ' && !quoted:
			if open || word.Len() > 0 {
				words = append(words, word.String())
			}
			word.Reset()
			open = false
		default:
			word.WriteRune(r)
		}
	}
	if open || word.Len() > 0 {
		words = append(words, word.String())
	}
	return words
}
