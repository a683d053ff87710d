package host

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMountsBelowComeLatestFirst(t *testing.T) {
	info := strings.Join([]string{
		"20 1 8:1 / / rw - ext4 /dev/sda1 rw",
		"30 20 0:5 / /var/lib/lab/data/a rw shared:1 - overlay overlay rw",
		"31 30 0:6 / /var/lib/lab/data/a/b rw - tmpfs shm rw",
		`32 20 0:7 / /var/lib/lab/with\040blank rw - tmpfs shm rw`,
		"33 20 0:8 / /var/lib/laboratory rw - tmpfs shm rw",
		"34 20 0:9 / /var/lib/lab rw - tmpfs shm rw",
		"cut short",
	}, "\n")
	want := []string{"/var/lib/lab", "/var/lib/lab/with blank", "/var/lib/lab/data/a/b", "/var/lib/lab/data/a"}
	if diff := cmp.Diff(want, mountsBelow(info, "/var/lib/lab")); diff != "" {
		t.Errorf("mounts differ (-want +got):\n%s", diff)
	}
}

func TestHierarchies(t *testing.T) {
	v1 := "30 20 0:20 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n31 20 0:21 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
	v2 := "32 20 0:22 / /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw\n"
	for name, tc := range map[string]struct {
		info string
		want Cgroup
	}{
		"version 1":           {v1, Cgroup{legacy: []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory"}}},
		"version 1 beside 2":  {v1 + v2, Cgroup{legacy: []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory"}, extra: []string{"/sys/fs/cgroup/unified"}}},
		"version 2":           {v2, Cgroup{unified: "/sys/fs/cgroup/unified"}},
		"none":                {"20 1 8:1 / / rw - ext4 /dev/sda1 rw\n", Cgroup{}},
		"mounted twice alike": {v1 + v1, Cgroup{legacy: []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup/memory"}}},
	} {
		if diff := cmp.Diff(tc.want, hierarchies(tc.info), cmp.AllowUnexported(Cgroup{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// A version 2 group on a made-up file system: controllers are handed down and
// the processes go to the leaf.
func TestCgroupVersion2(t *testing.T) {
	root := t.TempDir()
	for name, content := range map[string]string{"cgroup.controllers": "cpu memory rdma\n", "cgroup.subtree_control": ""} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	group := &Cgroup{name: "lab", unified: root}
	if group.Exists() {
		t.Error("the group exists before it is made")
	}
	if err := group.Create(); err != nil {
		t.Fatal(err)
	}
	if err := group.Place(4711); err != nil {
		t.Fatal(err)
	}
	if got := read(t, filepath.Join(root, "cgroup.subtree_control")); got != "+memory" { // the last one written to a plain file
		t.Errorf("controllers handed down: %q", got)
	}
	pids, err := group.Processes()
	if diff := cmp.Diff([]int{4711}, pids); diff != "" || err != nil {
		t.Errorf("processes (-want +got), %v:\n%s", err, diff)
	}
}

func TestPortConflicts(t *testing.T) {
	table := strings.Join([]string{
		"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
		"   0: 0100007F:57EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1", // 127.0.0.1:22507
		"   1: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 222 1", // 0.0.0.0:80
		"   2: 0100F40A:1388 0100F40A:9000 01 00000000:00000000 00:00000000 00000000     0        0 333 1", // connected
		"   3: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 444 1",
	}, "\n")
	sockets := parseSockets(table, "tcp")
	for want, inode := range map[string]string{
		"127.0.0.1:22507": "111", "10.244.0.1:22507": "", "10.244.0.1:80": "222", "10.244.0.1:5000": "", "10.244.0.1:8080": "444", "0.0.0.0:22507": "111",
	} {
		s, _ := conflict(netip.MustParseAddrPort(want), sockets)
		if s.inode != inode {
			t.Errorf("%s is held by %q, want %q", want, s.inode, inode)
		}
	}
}

func TestCheckPortsNamesTheHolder(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	taken := netip.MustParseAddrPort(listener.Addr().String())
	err = CheckPorts([]Port{{Network: "tcp", Address: taken, For: "etcd"}})
	if err == nil || !strings.Contains(err.Error(), taken.String()) || !strings.Contains(err.Error(), "host.test (pid ") {
		t.Errorf("error = %v", err)
	}
}

func TestBeforeKeepsWhatItSaw(t *testing.T) {
	want := Before{Sysctls: map[string]string{"net/ipv4/ip_forward": "0"}, Chains: map[string][]string{"iptables": {"CNI-podman"}}, Absent: []string{"/var/lib/cni"}}
	file := filepath.Join(t.TempDir(), "before.json")
	if err := want.Save(file); err != nil {
		t.Fatal(err)
	}
	got, err := Load(file)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("read back (-want +got), %v:\n%s", err, diff)
	}
}

func TestOtherNode(t *testing.T) {
	for _, tc := range []struct {
		chains map[string][]string
		want   string
	}{
		{nil, ""},
		{map[string][]string{"iptables": {"CNI-HOSTPORT-DNAT"}}, ""},
		{map[string][]string{"ip6tables": {"CNI-a", "KUBE-SERVICES"}}, "KUBE-SERVICES"},
	} {
		if got := (Before{Chains: tc.chains}).OtherNode(); got != tc.want {
			t.Errorf("%v: got %q, want %q", tc.chains, got, tc.want)
		}
	}
}

func TestRemoveLinksIntoLeavesOthers(t *testing.T) {
	dir := t.TempDir()
	for name, to := range map[string]string{"mine": "/state/data/log", "near": "/state/database/log", "other": "/elsewhere"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveLinksInto(dir, "/state/data"); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 || left[0].Name() != "near" || left[1].Name() != "other" {
		t.Errorf("left %v, %v", left, err)
	}
	if err := RemoveLinksInto(filepath.Join(dir, "absent"), "/state"); err != nil {
		t.Errorf("a directory that is not there: %v", err)
	}
}

func TestMissingPackages(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	got := MissingPackages(map[string]string{"ip": "iproute2", "no-such-tool": "ghost", "no-such-tool-2": "ghost"})
	want := []string{"ghost"}
	if _, err := os.Stat("/usr/sbin/ip"); err != nil {
		want = append(want, "iproute2")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("packages differ (-want +got):\n%s", diff)
	}
}
