package payload

import (
	"cmp"
	"encoding/json"
	"fmt"

	"kelpie.dev/kelpie/metric"
)

// HostMetadata is what an agent tells of its machine in POST /intake/.
type HostMetadata struct {
	Name    string
	Agent   string      // version; may be empty
	OS      string      // may be empty
	HasTags bool        // the body tells the host's tags, if only that there are none
	Tags    metric.Tags // canonical, of all sources
}

// DecodeHost decodes the metadata in the JSON body of POST /intake/. A body
// without any has no Name or does not have HasTags; of what is of another type
// than here, there is none. Tags that are no lists of strings, and more than
// MaxSeries of them, are an error.
func DecodeHost(body []byte) (HostMetadata, error) {
	var in struct {
		Internal loose           `json:"internalHostname"`
		Hostname loose           `json:"hostname"`
		Agent    loose           `json:"agentVersion"`
		OS       loose           `json:"os"`
		Tags     json.RawMessage `json:"host-tags"`
		Meta     json.RawMessage `json:"meta"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return HostMetadata{}, fmt.Errorf("decode host metadata: %w", err)
	}
	var meta struct {
		Hostname loose `json:"hostname"`
	}
	if len(in.Meta) > 0 && in.Meta[0] == '{' {
		if err := json.Unmarshal(in.Meta, &meta); err != nil {
			return HostMetadata{}, fmt.Errorf("decode host metadata: meta: %w", err)
		}
	}
	h := HostMetadata{Name: string(cmp.Or(in.Internal, in.Hostname, meta.Hostname)), Agent: string(in.Agent), OS: string(in.OS),
		HasTags: len(in.Tags) > 0 && string(in.Tags) != "null"}
	if !h.HasTags {
		return h, nil
	}
	// By source: "system", "google cloud platform" and so on.
	var sources map[string]bounded[*text]
	if err := json.Unmarshal(in.Tags, &sources); err != nil {
		return HostMetadata{}, fmt.Errorf("decode host metadata: host-tags: %w", err)
	}
	var all []*text
	for _, list := range sources {
		if len(all)+len(list) > MaxSeries {
			return HostMetadata{}, fmt.Errorf("decode host metadata: more than %d host-tags", MaxSeries)
		}
		all = append(all, list...)
	}
	h.Tags = tags(all)
	return h, nil
}

// loose is a string, or "" for any other JSON value.
type loose string

func (l *loose) UnmarshalJSON(b []byte) error {
	if len(b) == 0 || b[0] != '"' {
		return nil
	}
	var s string
	err := json.Unmarshal(b, &s)
	*l = loose(s)
	return err
}
