// Command sallyport-keyserver is the key server: it gives a person's new device the profile of the old one for the password or the recovery
// sheet, and counts the passwords that are tried. See package vault/keyserver.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
