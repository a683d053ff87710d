package origin

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/metric"
)

// canonical fails unless l's tags are canonical and its levels grow.
func canonical(t *testing.T, l *Levels) {
	t.Helper()
	for level := Low; level <= High; level++ {
		tags := l.At(level)
		if !cmp.Equal(tags, metric.NewTags(tags...)) {
			t.Errorf("tags are not canonical: %q", tags)
		}
		for _, tag := range l.At(level - 1) {
			if !tags.Has(tag) {
				t.Errorf("tag %q is at level %d and not at %d", tag, level-1, level)
			}
		}
	}
}

func FuzzPods(f *testing.F) {
	b, err := os.ReadFile("testdata/pods.json")
	if err != nil {
		f.Fatal(err)
	}
	// One by one, as short inputs are minimized in no time, and long ones never.
	var list struct{ Items []json.RawMessage }
	if err := json.Unmarshal(b, &list); err != nil {
		f.Fatal(err)
	}
	for _, item := range list.Items {
		var short bytes.Buffer
		if err := json.Compact(&short, item); err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(`{"items":[` + short.String() + `]}`))
	}
	f.Add([]byte(`{"items":[` + rowPod + `,{}]}`))
	f.Add([]byte(`{"items":[{"spec":{"containers":[{"name":"","env":[{"name":"A","value":"$(A)$$($("}]}]},"status":{"podIP":"::ffff:1.2.3.4","containerStatuses":[{"containerID":"x://y"}]}}]}`))
	all := newTagMap(map[string]string{"*": "%%label%%,+x%%"})
	f.Fuzz(func(t *testing.T, body []byte) {
		list, err := decodePods(body)
		if err != nil {
			return
		}
		x := NewIndex(list, TagOptions{PodLabels: all, PodAnnotations: all, ContainerEnv: all, Split: map[string]string{"a": ","}})
		for _, l := range x.containers.levels {
			canonical(t, l)
		}
		for uid, l := range x.pods.levels {
			canonical(t, l)
			if uid == "" {
				t.Error("a pod without a uid is known")
			}
		}
		if len(x.problems) > maxProblems {
			t.Errorf("%d problems", len(x.problems))
		}
		again := NewIndex(list, TagOptions{PodLabels: all, PodAnnotations: all, ContainerEnv: all, Split: map[string]string{"a": ","}})
		if again.inherit(x, time.Unix(0, 0)) {
			t.Error("the same pods are a change")
		}
	})
}

func FuzzCgroup(f *testing.F) {
	f.Add("0::/kubepods/pod" + appPod + "/" + appID)
	f.Add("12:cpu,cpuacct:/kubepods.slice/kubepods-pod1_2.slice/crio-" + appID + ".scope\n1:x:/")
	f.Fuzz(func(t *testing.T, content string) {
		if id := ParseCgroup(content).ContainerID; id != "" && (len(id) != 64 || !strings.Contains(content, id)) {
			t.Errorf("container id %q of %q", id, content)
		}
	})
}

func FuzzClaims(f *testing.F) {
	f.Add("ci-x,in-3", "it-false,cn-a,pu-b")
	f.Add("in-18446744073709551615", "pu-,cn-,it-")
	f.Fuzz(func(t *testing.T, local, external string) {
		if e := ParseLocalData(local); e.Inode != 0 && e.ContainerID != "" || e.PodUID != "" {
			t.Errorf("ParseLocalData(%q) = %+v", local, e)
		}
		if e := ParseExternalData(external); e.Known() && e.PodUID == "" || !strings.Contains(external, e.ContainerName) {
			t.Errorf("ParseExternalData(%q) = %+v", external, e)
		}
	})
}

func FuzzAnnotation(f *testing.F) {
	f.Add(`{"one":"1","list":["a",2,true,null,{}],"+rare":"r","+":"x","":"y"}`)
	f.Add(`{"a":[[]]}x`)
	f.Fuzz(func(t *testing.T, text string) {
		object, err := annotationTags(text)
		if err == nil && !json.Valid([]byte(text)) {
			t.Errorf("annotationTags(%q) = %q, %v", text, object, err)
		}
		list := &tagList{}
		for name, values := range object {
			for _, v := range values {
				list.addUser(name, v)
			}
		}
		canonical(t, list.levels(""))
	})
}

func FuzzTagMap(f *testing.F) {
	f.Add(`{"*":"%%label%%","a*b?":"x,+y"}`, "a/b", "v")
	f.Add(`{"`+strings.Repeat("*a", 50)+`":"%%%%%"}`, strings.Repeat("a", 200), "")
	f.Fuzz(func(t *testing.T, text, key, value string) {
		m, err := ParseTagMap(text)
		if err != nil {
			return
		}
		list := &tagList{}
		m.addTo(list, map[string]string{key: value})
		canonical(t, list.levels(""))
		if over := m.Merge(m); len(over.rules) != len(m.rules) {
			t.Errorf("a map merged with itself has %d rules of %d", len(over.rules), len(m.rules))
		}
	})
}

func FuzzServices(f *testing.F) {
	f.Add([]byte(answers["/api/v1/tags/pod/node-1"]))
	f.Add([]byte(`{"Nodes":{"node-1":null}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		services, err := decodeServices(body, "node-1")
		if err != nil && services != nil {
			t.Errorf("services %v with error %v", services, err)
		}
	})
}
