module kelpie.dev/kelpie/bench

go 1.26.7

require (
	github.com/DataDog/datadog-go/v5 v5.9.1
	github.com/klauspost/compress v1.20.3
	golang.org/x/perf v0.0.0-20260908200009-22c9c6c9d4da
	golang.org/x/sys v0.49.0
	kelpie.dev/kelpie v0.0.0
)

require (
	github.com/Microsoft/go-winio v0.6.3 // indirect
	github.com/aclements/go-moremath v0.0.0-20210112150236-f10218a38794 // indirect
	github.com/google/go-cmp v0.7.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace kelpie.dev/kelpie => ../
