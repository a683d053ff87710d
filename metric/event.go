package metric

// An Event is something that happened, told in words.
type Event struct {
	Title          string
	Text           string
	Time           int64 // Unix seconds; 0 means when it is sent
	Host           string
	AggregationKey string // events that share one are shown together; may be empty
	Priority       string // "normal" or "low"
	SourceType     string // may be empty
	AlertType      string // "info", "success", "warning" or "error"
	Tags           Tags
}

// A CheckStatus is what a service check found.
type CheckStatus uint8

// The statuses, with Datadog's numbers.
const (
	CheckOK       CheckStatus = 0
	CheckWarning  CheckStatus = 1
	CheckCritical CheckStatus = 2
	CheckUnknown  CheckStatus = 3
)

// A ServiceCheck is the state of something at one time.
type ServiceCheck struct {
	Name    string
	Status  CheckStatus
	Time    int64 // Unix seconds; 0 means when it is sent
	Host    string
	Message string
	Tags    Tags
}
