package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/sallyport/sallyport/vault/audit"
	"github.com/sallyport/sallyport/vault/audit/reconcile"
)

type auditReconcile struct {
	Folder   string        `arg:"" optional:"" name:"dir" help:"Folder of the published log."`
	TokenLog string        `help:"The token's own record." placeholder:"FILE"`
	Format   string        `enum:"spy,luna,yubihsm2,nshield" default:"spy" help:"Its format: the trace of pkcs11-spy (test tokens only: it holds PINs), or the audit log of a Thales Luna, a YubiHSM 2 or an Entrust nShield HSM."`
	Zone     string        `default:"Local" help:"Where the clock of a spy's or a Luna's record is, such as UTC or Europe/Berlin." placeholder:"NAME"`
	Dates    string        `enum:"dmy,mdy,ymd" default:"dmy" help:"The order of a Luna's dates."`
	Window   time.Duration `help:"How long after its entry an operation may come. Default: 1m." placeholder:"TIME"`
	Skew     time.Duration `help:"How far the token's clock may be off. Default: 2s." placeholder:"TIME"`
	Table    bool          `help:"Print which entry stands for which PKCS#11 function, and why some have none."`
	Document string        `name:"vault-document" help:"The vault document, as its ceremony made it. Default: the one that lies beside the log." placeholder:"FILE"`
	Join     string        `help:"The join link of the vault, from its ceremony." placeholder:"LINK"`
}

// shownFindings bounds those printed as text; --json has more.
const shownFindings = 50

func (c *auditReconcile) Run(s *session) error {
	if c.Table {
		s.print(reconcile.Table(), func(w io.Writer) {
			for _, r := range reconcile.Table() {
				fmt.Fprintf(w, "%s: %s\n    %s\n", r.Function, r.Use, r.Entry)
			}
		})
		return nil
	}
	if c.Folder == "" || c.TokenLog == "" {
		return fmt.Errorf("%w: a folder and --token-log, or --table", errUsage)
	}
	token, err := c.token()
	if err != nil {
		return err
	}
	at := auditLog{Folder: c.Folder, Document: c.Document, Join: c.Join}
	log, _, err := at.open(s)
	if err != nil {
		return s.damaged(err)
	}
	report, err := reconcile.Reconcile(s.ctx, token, log, reconcile.Options{Window: c.Window, Skew: c.Skew})
	if errors.Is(err, audit.ErrDamaged) {
		return s.damaged(err)
	}
	if err != nil {
		return err
	}
	s.print(report, func(w io.Writer) { tell(w, report) })
	if !report.Clean {
		return errQuiet{errFindings}
	}
	return nil
}

// token reads the token's record.
func (c *auditReconcile) token() (*reconcile.Token, error) {
	zone, err := time.LoadLocation(c.Zone)
	if err != nil {
		return nil, fmt.Errorf("%w: --zone: %w", errUsage, err)
	}
	f, err := os.Open(c.TokenLog)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	switch c.Format {
	case "luna":
		return reconcile.ReadLuna(f, c.Dates, zone)
	case "yubihsm2":
		return reconcile.ReadYubiHSM2(f)
	case "nshield":
		return reconcile.ReadNShield(f)
	}
	return reconcile.ReadSpy(f, zone)
}

// tell prints a report for people.
func tell(w io.Writer, r *reconcile.Report) {
	var all, mixed uint64
	for _, n := range r.Counts {
		all += n
	}
	for _, row := range r.Rows {
		mixed += row.Mixed
	}
	switch {
	case r.Clean:
		fmt.Fprintf(w, "Nothing is left over: each of the token's operations has its entry, and each of the log's %d entries its operations.\n", r.Entries)
	case all == r.Counts[reconcile.Mixed]:
		fmt.Fprintf(w, "NOT ALL COMPARED: lines of the token's record are mixed. By time and number nothing is left over between it and the log of %d entries; which keys were used is not compared there.\n", r.Entries)
	default:
		fmt.Fprintf(w, "LEFT OVER: the token's record and the log of %d entries do not agree.\n", r.Entries)
	}
	fmt.Fprintf(w, "\nlog    %s to %s\n", instant(r.From), instant(r.To))
	if !r.TokenFrom.IsZero() {
		fmt.Fprintf(w, "token  %s to %s\n", instant(r.TokenFrom), instant(r.TokenTo))
	}
	fmt.Fprintf(w, "\n%-10s %12s %12s %12s %12s %12s %12s\n", "", "operations", "no entry", "failed", "demanded", "unlogged", "not made")
	for _, row := range r.Rows {
		fmt.Fprintf(w, "%-10s %12d %12d %12d %12d %12d %12d\n", row.Class, row.Operations, row.Excused, row.Failed, row.Demanded, row.Unlogged, row.Unmade)
	}
	fmt.Fprintf(w, "\nsignatures of the log key  %d\n", r.Signatures)
	for _, count := range []struct {
		n    uint64
		what string
	}{
		{r.Outside, "operations demanded by entries outside of the token's record: not compared"},
		{r.Abandoned, "uses recorded just before the vault ended without a stop: they may not have been made"},
		{mixed, "operations of which mixed lines do not tell the key: compared by time and number"},
		{r.Erased, "entries whose details were erased"},
	} {
		if count.n > 0 {
			fmt.Fprintf(w, "%d %s\n", count.n, count.what)
		}
	}
	for i, f := range r.Findings {
		if i == shownFindings {
			break
		}
		fmt.Fprintf(w, "\n%s\n", strings.TrimRight(fmt.Sprintf("%s: %s %s", f.What, f.Class, f.Key), ": "))
		if f.Entry != nil {
			fmt.Fprintf(w, "    entry %d\n", *f.Entry)
		}
		if !f.Time.IsZero() {
			fmt.Fprintf(w, "    %s\n", instant(f.Time))
		}
		if f.Place != "" {
			fmt.Fprintf(w, "    %s\n", f.Place)
		}
		fmt.Fprintf(w, "    %s\n", f.Reason)
	}
	if all > shownFindings {
		fmt.Fprintf(w, "\nand %d more; --json lists up to 1,000\n", all-shownFindings)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "\nNote: %s\n", n)
	}
}

func instant(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000") }
