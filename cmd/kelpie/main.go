// Command kelpie is Kelpie's command line for people.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"kelpie.dev/kelpie/cli"
	"kelpie.dev/kelpie/env"
)

var version = "dev" // stamped at build time

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r := env.New(os.LookupEnv)
	o := cli.Options{
		Version: version,
		APIKey:  r.String("", "DD_API_KEY"),
		AppKey:  r.String("", "DD_APP_KEY", "DD_APPLICATION_KEY"),
		Out:     os.Stdout,
		Err:     os.Stderr,
	}
	if err := r.Err(); err != nil {
		fmt.Fprintln(os.Stderr, "kelpie:", err)
		return 2
	}
	return cli.Main(ctx, os.Args[1:], o)
}
