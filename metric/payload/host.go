package payload

import (
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
// without any has no Name or does not have HasTags. More than MaxSeries tags are
// an error.
func DecodeHost(body []byte) (HostMetadata, error) {
	var in struct {
		Host  string           `json:"internalHostname"`
		Agent string           `json:"agentVersion"`
		OS    string           `json:"os"`
		Tags  *json.RawMessage `json:"host-tags"`
		Meta  struct {
			Hostname string `json:"hostname"`
		} `json:"meta"`
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return HostMetadata{}, fmt.Errorf("decode host metadata: %w", err)
	}
	h := HostMetadata{Name: in.Host, Agent: in.Agent, OS: in.OS, HasTags: in.Tags != nil}
	if h.Name == "" {
		h.Name = in.Meta.Hostname
	}
	if !h.HasTags {
		return h, nil
	}
	// By source: "system", "google cloud platform" and so on.
	var sources map[string]bounded[*text]
	if err := json.Unmarshal(*in.Tags, &sources); err != nil {
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
