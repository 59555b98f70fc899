// Command sallyport-vault is the vault: it decides on readers' requests, records each decision in the key-use log, and has the token
// carry it out.
//
// It is started once with `init`, after the ceremony, and then with `serve`. It stops cleanly on SIGTERM and SIGINT. SIGUSR1 makes it log how
// often each PKCS#11 function was called.
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
