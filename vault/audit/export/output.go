package export

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrReceiver: events could not be handed over, or nobody knows whether they were. They are handed over again.
var ErrReceiver = errors.New("the receiver did not take the events")

// message is an event and one of its lines.
type message struct {
	event *Event
	line  []byte // without a newline
}

// Output is where events go: a [File], a [Pipe] or a [Syslog] server.
type Output interface {
	// begin is the position of an output that no cursor knows yet.
	begin(ctx context.Context) (int64, error)
	// deliver hands events over and returns the position behind them when they are safe. at is what the last deliver returned before the cursor moved; what
	// lies beyond it is of a delivery that did not end.
	deliver(ctx context.Context, at int64, events []message) (int64, error)
}

// File is the name of a file that events are appended to, a line each. It may be moved away between two deliveries; a new one is begun then.
type File string

func (f File) begin(context.Context) (int64, error) {
	info, err := os.Stat(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f File) deliver(_ context.Context, at int64, events []message) (end int64, err error) {
	file, err := os.OpenFile(string(f), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	switch {
	case size == 0: // new, or the old one was moved away
		at = 0
		if err := syncDir(filepath.Dir(string(f))); err != nil {
			return 0, err
		}
	case size < at:
		return 0, fmt.Errorf("%s has %d bytes, and the cursor says that %d were safe: something was cut off; move the file away, and a new one is begun", string(f), size, at)
	}
	want := join(events)
	same, err := agree(file, at, min(size-at, int64(len(want))), want)
	if err != nil {
		return 0, err
	}
	if same < len(want) {
		if err := file.Truncate(at + int64(same)); err != nil {
			return 0, err
		}
		if _, err := file.WriteAt(want[same:], at+int64(same)); err != nil {
			return 0, err
		}
	}
	end = at + int64(len(want))
	if size > end && same == len(want) { // more agrees, perhaps: the next delivery sees, but a torn line goes now
		var last [1]byte
		if _, err := file.ReadAt(last[:], size-1); err != nil {
			return 0, err
		}
		if last[0] != '\n' {
			if err := file.Truncate(end); err != nil {
				return 0, err
			}
		}
	}
	return end, file.Sync()
}

// agree is how many of the file's bytes from a position on are those wanted.
func agree(file io.ReaderAt, at, n int64, want []byte) (int, error) {
	have := make([]byte, n)
	if _, err := file.ReadAt(have, at); err != nil && n > 0 {
		return 0, err
	}
	for i := range have {
		if have[i] != want[i] {
			return i, nil
		}
	}
	return len(have), nil
}

func join(events []message) []byte {
	var b bytes.Buffer
	for _, m := range events {
		b.Write(m.line)
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// Pipe is a writer that keeps what it takes, such as standard output.
type Pipe struct{ io.Writer }

func (Pipe) begin(context.Context) (int64, error) { return 0, nil }

func (p Pipe) deliver(_ context.Context, at int64, events []message) (int64, error) {
	n, err := p.Write(join(events))
	return at + int64(n), err
}
