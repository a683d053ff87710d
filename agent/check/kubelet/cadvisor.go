package kubelet

import (
	"maps"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"

	"kelpie.dev/kelpie/agent/check"
	"kelpie.dev/kelpie/agent/check/exposition"
	"kelpie.dev/kelpie/metric"
)

const nano = 1e9

// An output is a metric that a family of cAdvisor's is told as.
type output struct {
	name  string
	scale float64
	rate  bool // the family is a total, its change per second is told
}

func perSecond(name string, scale float64) output {
	return output{name: name, scale: scale, rate: true}
}
func level(name string) output { return output{name: name, scale: 1} }

// containerFamilies are the families that are told for each container, with
// the device as a tag where there is one.
var containerFamilies = map[string][]output{
	"container_cpu_usage_seconds_total":            {perSecond("kubernetes.cpu.usage.total", nano), perSecond("container.cpu.usage", nano)},
	"container_cpu_user_seconds_total":             {perSecond("kubernetes.cpu.user.total", 1), perSecond("container.cpu.user", nano)},
	"container_cpu_system_seconds_total":           {perSecond("kubernetes.cpu.system.total", 1), perSecond("container.cpu.system", nano)},
	"container_cpu_load_average_10s":               {level("kubernetes.cpu.load.10s.avg")},
	"container_cpu_cfs_periods_total":              {perSecond("kubernetes.cpu.cfs.periods", 1)},
	"container_cpu_cfs_throttled_periods_total":    {perSecond("kubernetes.cpu.cfs.throttled.periods", 1), perSecond("container.cpu.throttled.periods", 1)},
	"container_cpu_cfs_throttled_seconds_total":    {perSecond("kubernetes.cpu.cfs.throttled.seconds", 1), perSecond("container.cpu.throttled", nano)},
	"container_pressure_cpu_waiting_seconds_total": {perSecond("container.cpu.partial_stall", nano)},
	"container_memory_usage_bytes":                 {level("kubernetes.memory.usage"), level("container.memory.usage")},
	"container_memory_working_set_bytes":           {level("kubernetes.memory.working_set"), level("container.memory.working_set")},
	"container_memory_rss":                         {level("kubernetes.memory.rss"), level("container.memory.rss")},
	"container_memory_cache":                       {level("kubernetes.memory.cache"), level("container.memory.cache")},
	"container_memory_swap":                        {level("kubernetes.memory.swap"), level("container.memory.swap")},
	"container_memory_kernel_usage":                {level("container.memory.kernel")},
	"container_oom_events_total":                   {level("container.memory.oom_events")},
	"container_threads":                            {level("container.pid.thread_count")},
	"container_threads_max":                        {level("container.pid.thread_limit")},
	"container_fs_usage_bytes":                     {level("kubernetes.filesystem.usage")},
	"container_fs_reads_bytes_total":               {perSecond("kubernetes.io.read_bytes", 1), perSecond("container.io.read", 1)},
	"container_fs_writes_bytes_total":              {perSecond("kubernetes.io.write_bytes", 1), perSecond("container.io.write", 1)},
	"container_fs_reads_total":                     {perSecond("container.io.read.operations", 1)},
	"container_fs_writes_total":                    {perSecond("container.io.write.operations", 1)},
}

// networkFamilies are told for each pod and interface: containers of a pod
// share its network.
var networkFamilies = map[string][]output{
	"container_network_receive_bytes_total":            {perSecond("kubernetes.network.rx_bytes", 1), perSecond("container.net.rcvd", 1)},
	"container_network_transmit_bytes_total":           {perSecond("kubernetes.network.tx_bytes", 1), perSecond("container.net.sent", 1)},
	"container_network_receive_packets_total":          {perSecond("container.net.rcvd.packets", 1)},
	"container_network_transmit_packets_total":         {perSecond("container.net.sent.packets", 1)},
	"container_network_receive_errors_total":           {perSecond("kubernetes.network.rx_errors", 1)},
	"container_network_transmit_errors_total":          {perSecond("kubernetes.network.tx_errors", 1)},
	"container_network_receive_packets_dropped_total":  {perSecond("kubernetes.network.rx_dropped", 1)},
	"container_network_transmit_packets_dropped_total": {perSecond("kubernetes.network.tx_dropped", 1)},
}

// specFamilies are read for what is told of a container together with others.
var specFamilies = map[string]bool{
	"container_spec_memory_limit_bytes": true, "container_spec_memory_reservation_limit_bytes": true, "container_spec_memory_swap_limit_bytes": true,
	"container_spec_cpu_quota": true, "container_spec_cpu_period": true, "container_start_time_seconds": true,
	"container_memory_usage_bytes": true, "container_memory_swap": true, "container_fs_usage_bytes": true, "container_fs_limit_bytes": true,
}

const machineCores = "machine_cpu_cores"

// noLimit is where a limit in bytes means that there is none: cgroups without
// one say about 2⁶³, and so does a resident size that went below zero.
const noLimit = 1 << 62

// usagePage is what one page of cAdvisor's tells.
type usagePage struct {
	s           *check.Sender
	node        *node
	specs       map[*container]map[specKey]float64
	network     map[networkKey]*networkTotal
	cores       float64
	fileSystems bool
}

type (
	specKey    struct{ family, device string }
	networkKey struct {
		family, interfaceName string
		pod                   *pod
	}
	networkTotal struct {
		sum float64
		at  time.Time
	}
)

// usage submits what a page of /metrics/cadvisor says about the node's
// containers. Rates are over the times at which cAdvisor read the totals, not
// over those of the runs: it reads on a clock of its own. fileSystems reports
// whether file systems were among it.
func usage(s *check.Sender, page []byte, n *node) (fileSystems bool, err error) {
	u := &usagePage{s: s, node: n, specs: map[*container]map[specKey]float64{}, network: map[networkKey]*networkTotal{}}
	err = exposition.Families(page, wanted, u.family)
	u.submitNetwork()
	for c, spec := range u.specs {
		u.submitSpec(c, spec)
	}
	return u.fileSystems, err
}

func wanted(family string) bool {
	return containerFamilies[family] != nil || networkFamilies[family] != nil || specFamilies[family] || family == machineCores
}

func (u *usagePage) family(f *dto.MetricFamily) {
	name := f.GetName()
	for _, m := range f.GetMetric() {
		if name == machineCores {
			u.cores = value(m)
			continue
		}
		l := readLabels(m)
		if outputs := networkFamilies[name]; outputs != nil {
			u.addNetwork(name, m, &l)
			continue
		}
		c := u.node.find(&l)
		if c == nil || !l.is(c.id) || l.cpu != "" && l.cpu != "total" {
			continue
		}
		if specFamilies[name] {
			if u.specs[c] == nil {
				u.specs[c] = map[specKey]float64{}
			}
			u.specs[c][specKey{name, l.device}] = value(m)
		}
		u.submit(containerFamilies[name], m, &l, c.high)
	}
}

func (u *usagePage) submit(outputs []output, m *dto.Metric, l *labels, tags metric.Tags) {
	v := value(m)
	for _, o := range outputs {
		if o.name == "kubernetes.memory.rss" && v >= noLimit {
			return
		}
		tags := l.deviceTags(o.name, tags)
		if o.rate {
			u.s.RateAt(o.name, v*o.scale, u.at(m), tags...)
		} else {
			u.s.Gauge(o.name, v*o.scale, tags...)
		}
	}
}

// at is when cAdvisor read a total.
func (u *usagePage) at(m *dto.Metric) time.Time {
	if ms := m.GetTimestampMs(); ms > 0 {
		return time.UnixMilli(ms)
	}
	return u.s.Time()
}

func (u *usagePage) addNetwork(family string, m *dto.Metric, l *labels) {
	p := u.node.byName[podName{l.namespace, l.pod}]
	if p == nil || p.Spec.HostNetwork || l.container != "" && l.container != "POD" {
		return
	}
	key := networkKey{family, l.interfaceName, p}
	if u.network[key] == nil {
		u.network[key] = &networkTotal{}
	}
	t := u.network[key]
	t.sum += value(m)
	if at := u.at(m); at.After(t.at) {
		t.at = at
	}
}

func (u *usagePage) submitNetwork() {
	for key, t := range u.network {
		tags := key.pod.orchestrator.Union("interface:" + key.interfaceName)
		for _, o := range networkFamilies[key.family] {
			u.s.RateAt(o.name, t.sum, t.at, tags...)
		}
	}
}

// submitSpec tells a container's limits, and what it uses of them.
func (u *usagePage) submitSpec(c *container, spec map[specKey]float64) {
	limit := spec[specKey{family: "container_spec_memory_limit_bytes"}]
	if limit > 0 && limit < noLimit {
		u.s.Gauge("container.memory.limit", limit, c.high...)
		if usage, ok := spec[specKey{family: "container_memory_usage_bytes"}]; ok {
			u.s.Gauge("kubernetes.memory.usage_pct", usage/limit, c.high...)
		}
	}
	if soft := spec[specKey{family: "container_spec_memory_reservation_limit_bytes"}]; soft > 0 && soft < noLimit {
		u.s.Gauge("container.memory.soft_limit", soft, c.high...)
	}
	if swapLimit := spec[specKey{family: "container_spec_memory_swap_limit_bytes"}]; swapLimit > 0 && swapLimit < noLimit {
		u.s.Gauge("kubernetes.memory.sw_limit", swapLimit, c.high...)
		if swap, ok := spec[specKey{family: "container_memory_swap"}]; ok {
			u.s.Gauge("kubernetes.memory.sw_in_use", swap/swapLimit, c.high...)
		}
	}
	cores := u.cores // without a limit of its own, a container has the machine
	if quota, period := spec[specKey{family: "container_spec_cpu_quota"}], spec[specKey{family: "container_spec_cpu_period"}]; quota > 0 && period > 0 {
		cores = quota / period
	}
	if cores > 0 {
		u.s.Gauge("container.cpu.limit", cores*nano, c.high...)
	}
	if start := spec[specKey{family: "container_start_time_seconds"}]; start > 0 {
		u.s.Gauge("container.uptime", max(0, float64(u.s.Time().Unix())-start), c.high...)
	}
	for key := range maps.Keys(spec) {
		if key.family != "container_fs_usage_bytes" {
			continue
		}
		u.fileSystems = true
		if limit := spec[specKey{"container_fs_limit_bytes", key.device}]; limit > 0 {
			l := labels{device: key.device}
			u.s.Gauge("kubernetes.filesystem.usage_pct", spec[key]/limit, l.deviceTags("", c.high)...)
		}
	}
}

// labels are what a sample says about where it is from.
type labels struct {
	namespace, pod, container  string
	id, name                   string // the cgroup, and what the runtime calls it
	device, interfaceName, cpu string
}

func readLabels(m *dto.Metric) (l labels) {
	for _, p := range m.GetLabel() {
		switch p.GetName() {
		case "namespace":
			l.namespace = p.GetValue()
		case "pod":
			l.pod = p.GetValue()
		case "container":
			l.container = p.GetValue()
		case "id":
			l.id = p.GetValue()
		case "name":
			l.name = p.GetValue()
		case "device":
			l.device = p.GetValue()
		case "interface":
			l.interfaceName = p.GetValue()
		case "cpu":
			l.cpu = p.GetValue()
		}
	}
	return l
}

// is reports whether the sample is of the container with that id, and not of
// the one before a restart. A sample that does not say is.
func (l *labels) is(id string) bool {
	return l.id == "" && l.name == "" || id != "" && (l.name == id || strings.Contains(l.id, id))
}

// deviceTags adds the sample's device to tags; container.* metrics have it by
// two names.
func (l *labels) deviceTags(name string, tags metric.Tags) metric.Tags {
	if l.device == "" {
		return tags
	}
	if strings.HasPrefix(name, "container.") {
		return tags.Union("device:"+l.device, "device_name:"+strings.TrimPrefix(l.device, "/dev/"))
	}
	return tags.Union("device:" + l.device)
}

func value(m *dto.Metric) float64 {
	switch {
	case m.GetCounter() != nil:
		return m.GetCounter().GetValue()
	case m.GetGauge() != nil:
		return m.GetGauge().GetValue()
	default:
		return m.GetUntyped().GetValue()
	}
}
