package hardware

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"rsc.io/qr"

	"github.com/sallyport/sallyport/policies"
	"github.com/sallyport/sallyport/policies/links"
)

// joinLink makes the link that clients pin, and refuses URLs that no client would take.
func joinLink(doc *policies.VaultDocument, storefront, owners string) (links.Join, error) {
	return links.ParseJoin(links.Join{
		Vault: doc.Vault, Ceremony: policies.HashKey(doc.CeremonyKey), Storefront: storefront, Owners: owners,
	}.String())
}

// JoinLink reads the join link of a finished ceremony and refuses one that names another vault or ceremony key than r.
func (r *Record) JoinLink(dir string) (links.Join, error) {
	raw, err := os.ReadFile(filepath.Join(dir, joinTextFile))
	if err != nil {
		return links.Join{}, fmt.Errorf("%w: %w", ErrFolder, err)
	}
	link, err := links.ParseJoin(strings.TrimSpace(string(raw)))
	if err != nil {
		return link, fmt.Errorf("%w: %s: %w", ErrFolder, joinTextFile, err)
	}
	if link.Vault != r.Vault.Vault || link.Ceremony != policies.HashKey(r.Vault.CeremonyKey) {
		return link, fmt.Errorf("%w: %s names another vault than %s", ErrFolder, joinTextFile, vaultFile)
	}
	return link, nil
}

// writeJoin writes the link as text and as a picture.
func writeJoin(dir string, link links.Join) error {
	code, err := qr.Encode(link.String(), qr.M)
	if err != nil {
		return fmt.Errorf("making the QR code: %w", err)
	}
	if err := writeFile(filepath.Join(dir, joinTextFile), []byte(link.String()+"\n"), 0o644); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, joinImageFile), code.PNG(), 0o644)
}

// QRCode draws a join link: two rows of the code in a line, as half blocks, with the quiet zone of four that readers want
// (ISO/IEC 18004). coloured, for a terminal, makes it dark on light whatever the terminal's own colours.
func QRCode(link links.Join, coloured bool) (string, error) {
	code, err := qr.Encode(link.String(), qr.M)
	if err != nil {
		return "", fmt.Errorf("making the QR code: %w", err)
	}
	const quiet = 4
	before, after := "", "\n"
	if coloured {
		before, after = "\x1b[30;107m", "\x1b[0m\n" // black on bright white
	}
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		b.WriteString(before)
		for x := -quiet; x < code.Size+quiet; x++ {
			switch upper, lower := code.Black(x, y), code.Black(x, y+1); {
			case upper && lower:
				b.WriteRune('█')
			case upper:
				b.WriteRune('▀')
			case lower:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteString(after)
	}
	return b.String(), nil
}
