package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/storefront/client"
	"github.com/sallyport/sallyport/storefront/client/profile"
	"github.com/sallyport/sallyport/vault/audit"
)

type auditRecheck struct {
	auditLog
	From   string   `help:"Report the releases from this entry or time on, such as 1200 or 2026-03-01 or 2026-03-01T12:00:00Z. What came before is replayed all the same." placeholder:"WHEN"`
	To     string   `help:"And up to, without, this one." placeholder:"WHEN"`
	Allow  []string `help:"Codes of reasons that may be found, such as erased: what has no other does not count against exit code 0." placeholder:"CODE"`
	Report string   `help:"Write the report, as JSON, to this file, which must not exist." placeholder:"FILE"`
	As     string   `help:"Sign the report with the identity of this profile; it opens like any other." placeholder:"PROFILE"`
}

// errFindings ends a recheck that found something.
var errFindings = errors.New("there are releases that are not justified, or cannot be checked, or documents that nobody signed")

func (c *auditRecheck) Run(s *session) error {
	part, err := partOf(c.From, c.To)
	if err != nil {
		return err
	}
	log, _, err := c.open(s)
	if err != nil {
		return s.damaged(err)
	}
	stop := s.progress(log)
	report, err := log.Recheck(s.ctx, part)
	stop()
	if err != nil {
		return s.damaged(err)
	}
	written := report.Bytes()
	if c.As != "" {
		s.Profile = c.As
		err := s.withReader(func(r *client.Reader, _ *profile.Profile) error {
			report.Auditor = policies.IdentityID(r.ID())
			e, err := r.SignAudit(report)
			if err == nil {
				written = append(e.Raw, '\n')
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("signing the report: %w", err)
		}
	}
	if c.Report != "" {
		if err := writeNew(c.Report, written); err != nil {
			return err
		}
	}
	if s.JSON {
		if _, err := s.stdout.Write(written); err != nil {
			return err
		}
	} else {
		printReport(s.stdout, report)
	}
	if report.Unjustified.Without(c.Allow)+report.Unchecked.Without(c.Allow)+report.Documents.Without(c.Allow) > 0 {
		return errQuiet{errFindings}
	}
	return nil
}

func writeNew(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

func printReport(w io.Writer, r *audit.Report) {
	fmt.Fprintf(w, "%d releases: %d justified, %d unjustified, %d not checkable\n", r.Releases, r.Justified, r.Unjustified.Count, r.Unchecked.Count)
	fmt.Fprintf(w, "%d documents that the vault should not have acted on\n", r.Documents.Count)
	switch n := r.Unbounded.Count; {
	case n > 0 && len(r.Witnesses) == 0:
		fmt.Fprintf(w, "%d of the justified releases rest on the vault's clock: no witness was asked for (--witness)\n", n)
	case n > 0:
		fmt.Fprintf(w, "%d of the justified releases rest on the vault's clock, between the times of the witnesses\n", n)
	}
	for _, list := range []struct {
		title string
		*audit.Findings
	}{{"unjustified", &r.Unjustified}, {"not checkable", &r.Unchecked}, {"documents", &r.Documents}, {"justified, if the vault's clock was right", &r.Unbounded}} {
		if list.Findings == &r.Unbounded && len(r.Witnesses) == 0 { // all of them
			continue
		}
		if list.Count == 0 {
			continue
		}
		fmt.Fprintf(w, "\n%s\n", list.title)
		for _, c := range list.Reasons {
			fmt.Fprintf(w, "  %-20s %d\n", c.Code, c.Count)
		}
		for _, f := range list.Listed {
			fmt.Fprintf(w, "  entry %d, %s, %s", f.Index, f.Time.Format("2006-01-02 15:04:05.000"), oneLine(string(f.Kind)))
			if f.Field != "" {
				fmt.Fprintf(w, " of %s", f.Field)
			}
			if !f.Grant.IsZero() {
				fmt.Fprintf(w, " under grant %s", f.Grant)
			}
			fmt.Fprintln(w)
			for _, why := range f.Reasons {
				fmt.Fprintf(w, "    %s: %s\n", why.Code, oneLine(why.Text))
			}
		}
		if more := list.Count - uint64(len(list.Listed)); more > 0 {
			fmt.Fprintf(w, "  and %d more\n", more)
		}
	}
}

// partOf reads the ends of a part of a log, each an index or a time.
func partOf(from, to string) (part audit.Range, err error) {
	if part.From, part.Since, err = place(from); err == nil {
		part.To, part.Until, err = place(to)
	}
	if err == nil && (part.From > 0 && part.To > 0 && part.From >= part.To || !part.Since.IsZero() && !part.Until.IsZero() && !part.Since.Before(part.Until)) {
		err = fmt.Errorf("%w: there is nothing from %s to %s", errUsage, from, to) // and so nothing would be found
	}
	return part, err
}

func place(text string) (index uint64, at time.Time, err error) {
	if text == "" {
		return 0, at, nil
	}
	if strings.Trim(text, "0123456789") == "" {
		index, err = strconv.ParseUint(text, 10, 64)
		return index, at, err
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if at, err = time.Parse(form, text); err == nil {
			return 0, at, nil
		}
	}
	return 0, at, fmt.Errorf("%w: %q is neither the index of an entry nor a time", errUsage, text)
}
