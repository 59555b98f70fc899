// Command story plays what Sallyport is for, from an empty folder to a revoked grant, with real processes and the address books of 52
// invented people, and says of each part how long it took. `hardware/quickstart` builds and runs it.
//
// Exit codes: 0 all went as told, 1 something did not.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second Ctrl-C does not wait for an orderly end; the processes that were started end with this one
	check := flag.Bool("check", false, "play it unattended, keep nothing, exit 0 or 1")
	keep := flag.String("keep", "", "leave everything in this `folder`, which must be empty or new")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "quickstart: unknown argument %q\n", flag.Arg(0))
		os.Exit(2)
	}
	if err := tell(ctx, *check, *keep); err != nil {
		if ctx.Err() != nil {
			fmt.Fprintln(os.Stderr, "\nquickstart: interrupted")
		} else {
			fmt.Fprintln(os.Stderr, "\nquickstart:", err)
		}
		os.Exit(1)
	}
}

// tell plays the story in a folder that is removed afterwards unless it is to be kept.
func tell(ctx context.Context, check bool, keep string) (err error) {
	dir := keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "sallyport-quickstart-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	} else if dir, err = filepath.Abs(dir); err != nil {
		return err
	} else if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is not empty; give a new folder", dir)
	}
	p := &play{dir: dir, out: os.Stdout}
	defer func() {
		if closeErr := p.close(); err == nil {
			err = closeErr
		}
	}()
	if err := p.perform(ctx); err != nil {
		return err
	}
	p.summary()
	if check {
		return nil
	}
	p.goOn(keep != "")
	<-ctx.Done()
	fmt.Fprintln(os.Stdout, "\nstopping")
	return nil
}
