package export

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/vault/audit"
)

// Format is how an event is written.
type Format string

// The formats.
const (
	JSONL Format = "jsonl" // an [Event] a line
	OCSF  Format = "ocsf"  // Open Cybersecurity Schema Framework, version 1.5.0, as JSON lines
	CEF   Format = "cef"   // ArcSight Common Event Format, version 0
)

// lines are an event in a format: one line, or several if the format has an event for each person of whom the entry speaks.
func (f Format) lines(e *Event) ([][]byte, error) {
	switch f {
	case JSONL:
		line, err := marshal(e)
		return [][]byte{line}, err
	case OCSF:
		return ocsf(e)
	case CEF:
		return [][]byte{cef(e)}, nil
	}
	return nil, fmt.Errorf("events are written as %s, %s or %s, not as %q", JSONL, OCSF, CEF, string(f))
}

// Exporter hands over the events of a log. It is used by one goroutine.
type Exporter struct {
	Source     audit.Source
	Document   *policies.VaultDocument
	Format     Format
	Pseudonyms bool // leave ids and names out
	Output     Output
	// Cursor is the file that says how far the export is; it is made where there is none. Without one, an export begins at From each time.
	Cursor string
	// From is the first entry to hand over, if there is no cursor yet.
	From uint64
	// Delayed, if set, is told why Follow waits and tries again.
	Delayed func(error)

	history *history
	read    uint64 // entries that history has
	cursor  *cursor
}

// batch is how many entries are handed over before the cursor moves.
const batch = 1000

// slowest is how long Follow waits at most before it tries a receiver again.
const slowest = time.Minute

// Run hands over what the log has gained since the cursor. A log that is not in order is an error that wraps [audit.ErrDamaged], after the fault was
// handed over.
func (x *Exporter) Run(ctx context.Context) error {
	unlock, err := x.open(ctx)
	if err != nil {
		return err
	}
	return errors.Join(x.round(ctx), unlock())
}

// Follow is Run again and again, with a pause, until the context ends or something is wrong. A receiver that does not answer is waited for.
func (x *Exporter) Follow(ctx context.Context, pause time.Duration) error {
	unlock, err := x.open(ctx)
	if err != nil {
		return err
	}
	wait := pause
	for {
		switch err := x.round(ctx); {
		case ctx.Err() != nil:
			return unlock()
		case errors.Is(err, ErrReceiver):
			if x.Delayed != nil {
				x.Delayed(err)
			}
			wait = min(2*wait, slowest)
		case err != nil:
			return errors.Join(err, unlock())
		default:
			wait = pause
		}
		select {
		case <-ctx.Done():
			return unlock()
		case <-time.After(wait):
		}
	}
}

// open reads the cursor, or makes the first one before anything goes out: what a crash leaves in a file is then beyond it.
func (x *Exporter) open(ctx context.Context) (unlock func() error, err error) {
	if _, err := x.Format.lines(new(Event)); err != nil {
		return nil, err
	}
	x.history, x.read = newHistory(x.Document, x.Pseudonyms), 0
	first := &cursor{Format: cursorFormat, Log: x.Document.LogKey.Name, Vault: x.Document.Vault, Events: x.Format, Pseudonyms: x.Pseudonyms, Next: x.From}
	if x.Cursor == "" {
		x.cursor = first
		first.Output, err = x.Output.begin(ctx)
		return func() error { return nil }, err
	}
	unlock, err = lock(x.Cursor)
	if err != nil {
		return nil, err
	}
	x.cursor, err = readCursor(x.Cursor)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		x.cursor = first
		if first.Output, err = x.Output.begin(ctx); err == nil {
			err = first.write(x.Cursor)
		}
	case err == nil:
		err = x.cursor.fits(first)
	}
	if err != nil {
		return nil, errors.Join(err, unlock())
	}
	return unlock, nil
}

// round hands over what there is.
func (x *Exporter) round(ctx context.Context) error {
	log, err := audit.Open(ctx, x.Source, x.Document)
	if err != nil {
		if x.cursor.Size == 0 && errors.Is(err, fs.ErrNotExist) {
			return err // a log that was never seen is no fault
		}
		return x.fault(ctx, err, FaultSignature)
	}
	if x.cursor.Checkpoint != "" {
		if err := log.Consistent(ctx, x.cursor.Checkpoint); err != nil {
			code := FaultFork
			if log.Checkpoint.Size < x.cursor.Size {
				code = FaultGap
			}
			return x.fault(ctx, err, code)
		}
	}
	if x.cursor.Next > log.Checkpoint.Size {
		return nil // From is still to come
	}
	var due []message
	for r, err := range log.Proven(ctx, x.read, log.Checkpoint.Size) {
		var e *Event
		if err == nil {
			e, err = x.history.event(r)
		}
		if err != nil { // what was proven before goes out
			return errors.Join(x.deliver(ctx, due, x.read, log), x.fault(ctx, err, FaultDamaged))
		}
		x.read = r.Index + 1
		if r.Index < x.cursor.Next {
			continue
		}
		if due, err = x.render(due, e); err != nil {
			return err
		}
		if x.read-x.cursor.Next >= batch {
			if err := x.deliver(ctx, due, x.read, log); err != nil {
				return err
			}
			due = due[:0]
		}
	}
	if x.read == x.cursor.Next && x.cursor.Size == log.Checkpoint.Size && x.cursor.Fault == "" {
		return nil
	}
	x.cursor.Fault = ""
	return x.deliver(ctx, due, x.read, log)
}

func (x *Exporter) render(due []message, e *Event) ([]message, error) {
	lines, err := x.Format.lines(e)
	for _, line := range lines {
		due = append(due, message{e, line})
	}
	return due, err
}

// deliver hands events over and then moves the cursor to the entry after them. log is what the entries up to it were proven under. A receiver that did
// not take them gets them again: the history that they were made from is then read anew.
func (x *Exporter) deliver(ctx context.Context, due []message, next uint64, log *audit.Log) error {
	moved := *x.cursor
	if len(due) > 0 {
		at, err := x.Output.deliver(ctx, x.cursor.Output, due)
		if err != nil {
			x.history, x.read = newHistory(x.Document, x.Pseudonyms), 0
			return err
		}
		moved.Output = at
	}
	moved.Next = max(next, moved.Next)
	if log != nil {
		moved.Size, moved.Root, moved.Checkpoint = log.Checkpoint.Size, log.Checkpoint.Root, log.Note
	}
	if x.Cursor != "" {
		if err := moved.write(x.Cursor); err != nil {
			return err
		}
	}
	x.cursor = &moved
	return nil
}

// fault hands a fault over, once, and returns it as an error.
func (x *Exporter) fault(ctx context.Context, err error, code FaultCode) error {
	e := fault(err, code, x.cursor.Size)
	if e == nil {
		return err
	}
	if !errors.Is(err, audit.ErrDamaged) {
		err = fmt.Errorf("%w: %w", audit.ErrDamaged, err)
	}
	if e.name(x.Document); e.UID == x.cursor.Fault {
		return err
	}
	e.stamp(time.Now())
	due, failed := x.render(nil, e)
	if failed == nil {
		x.cursor.Fault = e.UID
		if failed = x.deliver(ctx, due, x.cursor.Next, nil); failed != nil {
			x.cursor.Fault = ""
		}
	}
	return errors.Join(err, failed)
}
