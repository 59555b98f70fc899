package main

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rsc.io/qr"

	"github.com/sallyport/sallyport/policies/links"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/profile"
)

type bizInvite struct {
	CSV    string `name:"csv" help:"CSV file whose first row names the columns; - for standard input." required:"" placeholder:"FILE"`
	Column string `help:"The column with your own reference of each customer, 1 to 64 bytes, each once." default:"reference"`
	Out    string `help:"CSV file to write: reference, link, expires. If it is there, it is carried on where it ends. Whoever has a link can use it: hand each to its customer alone." required:"" placeholder:"FILE"`
	For    string `help:"How long the links may be used." default:"60d"`
	QR     string `name:"qr" help:"Also write each link as a picture into this folder, named by the row's number." placeholder:"DIR"`
}

// inviteHeader is the first row of what biz invite writes.
var inviteHeader = []string{"reference", "link", "expires"}

func (c *bizInvite) Run(s *session) error {
	duration, err := parseDuration(c.For)
	if err != nil {
		return err
	}
	in := s.stdin
	if c.CSV != "-" {
		f, err := os.Open(c.CSV)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	references, err := referencesOf(in, c.Column)
	if err != nil {
		return err
	}
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		done, err := openInvitations(c.Out)
		if err != nil {
			return err
		}
		defer done.file.Close()
		if len(done.references) > len(references) || !slices.Equal(done.references, references[:len(done.references)]) {
			return fmt.Errorf("%s was written for another file: its rows are not the first ones of %s", c.Out, c.CSV)
		}
		expires := time.Now().Add(duration).UTC().Truncate(time.Second)
		if !done.expires.IsZero() {
			expires = done.expires // one file, one end
		}
		before := len(done.references)
		for i, reference := range references[before:] {
			if err := s.ctx.Err(); err != nil {
				return errors.Join(err, done.close())
			}
			link, err := r.Invite(reference, expires)
			if err != nil {
				return errors.Join(fmt.Errorf("row %d: %w", before+i+1, err), done.close())
			}
			_ = done.rows.Write([]string{reference, link.String(), expires.Format(time.RFC3339)}) // Flush tells
		}
		if err := done.close(); err != nil {
			return fmt.Errorf("writing %s: %w", c.Out, err)
		}
		if c.QR != "" {
			if err := writePictures(s, c.QR, r, references, expires); err != nil {
				return err
			}
		}
		s.print(map[string]any{"invitations": len(references), "new": len(references) - before, "expires": expires, "file": c.Out}, func(w io.Writer) {
			fmt.Fprintf(w, "%d invitations are in %s, %d of them new, usable until %s.\n", len(references), c.Out, len(references)-before, until(expires))
		})
		return nil
	})
}

// referencesOf reads one column of a CSV file.
func referencesOf(in io.Reader, column string) ([]string, error) {
	rows := csv.NewReader(bufio.NewReader(in))
	rows.ReuseRecord = true
	head, err := rows.Read()
	if errors.Is(err, io.EOF) {
		return nil, errors.New("reading the CSV file: it is empty")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the CSV file: %w", err)
	}
	at := slices.IndexFunc(head, func(name string) bool { return strings.TrimPrefix(name, "\ufeff") == column })
	if at < 0 {
		return nil, fmt.Errorf("reading the CSV file: it has no column %q, but %q; see --column", column, head)
	}
	var out []string
	seen := map[string]bool{}
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading the CSV file: %w", err)
		}
		reference := strings.Clone(row[at])
		if seen[reference] {
			return nil, fmt.Errorf("row %d: the reference %q was there before", len(out)+1, reference)
		}
		seen[reference] = true
		out = append(out, reference)
	}
}

// invitations is the file that biz invite writes, open at its end.
type invitations struct {
	file       *os.File
	buffer     *bufio.Writer
	rows       *csv.Writer
	references []string // that are in it
	expires    time.Time
}

// openInvitations opens the file, or makes it, and cuts off a last row that a crash left half.
func openInvitations(name string) (*invitations, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	done := &invitations{file: f}
	text, err := io.ReadAll(f)
	if err == nil {
		text = text[:bytes.LastIndexByte(text, '\n')+1]
		err = f.Truncate(int64(len(text)))
	}
	if err == nil {
		_, err = f.Seek(int64(len(text)), io.SeekStart)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	done.buffer = bufio.NewWriterSize(f, 1<<20)
	done.rows = csv.NewWriter(done.buffer)
	if len(text) == 0 {
		_ = done.rows.Write(inviteHeader)
		return done, nil
	}
	err = eachInvitation(bytes.NewReader(text), func(reference string, _ links.Invite, expires time.Time) error {
		done.references, done.expires = append(done.references, reference), expires
		return nil
	})
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return done, nil
}

func (i *invitations) close() error {
	i.rows.Flush()
	return errors.Join(i.rows.Error(), i.buffer.Flush(), i.file.Sync(), i.file.Close())
}

// eachInvitation reads what biz invite wrote.
func eachInvitation(in io.Reader, visit func(reference string, link links.Invite, expires time.Time) error) error {
	rows := csv.NewReader(bufio.NewReader(in))
	rows.FieldsPerRecord, rows.ReuseRecord = len(inviteHeader), true
	head, err := rows.Read()
	if err != nil || !slices.Equal(head, inviteHeader) {
		return fmt.Errorf("it is not a file of invitations: %w", errors.Join(err, errNotInvitations))
	}
	for n := 1; ; n++ {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		link, err := links.ParseInvite(row[1])
		if err != nil {
			return fmt.Errorf("row %d: %w", n, err)
		}
		expires, err := time.Parse(time.RFC3339, row[2])
		if err != nil {
			return fmt.Errorf("row %d: %w", n, err)
		}
		if err := visit(strings.Clone(row[0]), link, expires); err != nil {
			return fmt.Errorf("row %d: %w", n, err)
		}
	}
}

var errNotInvitations = errors.New("the first row is not reference,link,expires")

// writePictures writes the QR codes that are missing.
func writePictures(s *session, dir string, r *client.Reader, references []string, expires time.Time) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for i, reference := range references {
		name := filepath.Join(dir, fmt.Sprintf("%06d.png", i+1))
		if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := s.ctx.Err(); err != nil {
			return err
		}
		link, err := r.Invite(reference, expires)
		if err != nil {
			return err
		}
		code, err := qr.Encode(link.String(), qr.M)
		if err != nil {
			return fmt.Errorf("making a QR code: %w", err)
		}
		if err := profile.WriteFile(name, code.PNG()); err != nil {
			return err
		}
	}
	return nil
}

type bizInvited struct {
	File string `arg:"" help:"The file that biz invite wrote."`
}

func (c *bizInvited) Run(s *session) error {
	f, err := os.Open(c.File)
	if err != nil {
		return err
	}
	defer f.Close()
	return s.withReader(func(r *client.Reader, _ *profile.Profile) error {
		mail, err := r.Receive(s.ctx, 0)
		s.noteRefused(mail)
		if err != nil {
			return err
		}
		out := bufio.NewWriter(s.stdout)
		defer out.Flush()
		quick := *s
		quick.stdout = out
		counts := map[string]int{}
		err = eachInvitation(f, func(reference string, link links.Invite, _ time.Time) error {
			status, own, err := r.Invited(link)
			if err != nil {
				return err
			}
			if own != reference {
				return fmt.Errorf("the link of %q is %q's", reference, own)
			}
			counts[status]++
			quick.printLine(map[string]string{"reference": reference, "status": status}, reference+"\t"+status)
			return nil
		})
		if err != nil {
			return fmt.Errorf("reading %s: %w", c.File, err)
		}
		s.note("%d accepted, %d open, %d expired.", counts["accepted"], counts["open"], counts["expired"])
		return nil
	})
}
