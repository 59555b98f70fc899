package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"github.com/sallyport/sallyport/vault/audit/export"
)

type auditExport struct {
	auditLog
	Format     string `help:"How events are written: ${enum}. syslog: what --payload says, to a server." enum:"ocsf,cef,jsonl,syslog" required:""`
	Out        string `short:"o" help:"Append to this file. Default: standard output." placeholder:"FILE"`
	Cursor     string `help:"File that says how far the export is, so that the next one goes on there. Default: with -o, the file's name with \".cursor\" behind it; else none, and each export begins anew." placeholder:"FILE"`
	From       uint64 `help:"Where there is no cursor yet: begin with this entry." placeholder:"N"`
	Follow     bool   `short:"f" help:"Go on with what comes, until interrupted."`
	Pseudonyms bool   `help:"Leave ids and names out: owners and readers are told by pseudonym only."`

	To             string `help:"With --format syslog: the server, which must speak TLS 1.3. Its certificate must come from those of --ca, or of this machine." placeholder:"HOST:PORT"`
	Payload        string `help:"With --format syslog: what the messages hold, ${enum}." enum:"cef,jsonl,ocsf" default:"cef"`
	Cert           string `help:"Certificate (PEM) to show to the server, if it asks for one." placeholder:"FILE"`
	Key            string `help:"Its private key (PEM)." placeholder:"FILE"`
	AllowClassical bool   `help:"Take a server without post-quantum key exchange: who records the traffic can read it when there is a quantum computer."`
}

func (c *auditExport) Run(s *session) error {
	x := &export.Exporter{
		Format: export.Format(c.Format), Cursor: c.Cursor, From: c.From, Pseudonyms: c.Pseudonyms,
		Delayed: func(err error) { s.note("%v; trying again", err) },
	}
	var err error
	if x.Output, err = c.output(s); err != nil {
		return err
	}
	if c.Format == "syslog" {
		x.Format = export.Format(c.Payload)
	}
	if c.Cursor == "" && c.Out != "" {
		x.Cursor = c.Out + ".cursor"
	}
	if x.Document, _, err = c.document(s); err != nil {
		return err
	}
	if x.Source, err = s.place(c.Folder); err != nil {
		return err
	}
	if c.Follow {
		return x.Follow(s.ctx, tailPause)
	}
	return x.Run(s.ctx)
}

// output is where events go.
func (c *auditExport) output(s *session) (export.Output, error) {
	switch {
	case c.Format != "syslog" && (c.To != "" || c.Cert != "" || c.Key != "" || c.AllowClassical):
		return nil, fmt.Errorf("%w: --to, --cert, --key and --allow-classical are for --format syslog", errUsage)
	case c.Format != "syslog" && c.Out != "":
		return export.File(c.Out), nil
	case c.Format != "syslog":
		return export.Pipe{Writer: s.stdout}, nil
	case c.To == "" || c.Out != "":
		return nil, fmt.Errorf("%w: --format syslog needs --to HOST:PORT, and takes no -o", errUsage)
	case c.Follow && c.Cursor == "":
		return nil, fmt.Errorf("%w: to follow with syslog, give --cursor FILE, or each start would send everything again", errUsage)
	}
	server := &export.Syslog{Address: c.To, TLS: export.SyslogTLS(c.AllowClassical)}
	var err error
	if server.Hostname, err = os.Hostname(); err != nil {
		return nil, err
	}
	if s.CA != "" {
		pem, err := os.ReadFile(s.CA)
		if err != nil {
			return nil, err
		}
		server.TLS.RootCAs = x509.NewCertPool()
		if !server.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", s.CA)
		}
	}
	if c.Cert != "" || c.Key != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("the certificate to show: %w", err)
		}
		server.TLS.Certificates = []tls.Certificate{pair}
	}
	return server, nil
}
