package policies

import "fmt"

// Check refuses a header that is not one of a document of this type: for documents that are declared in other packages.
func (h *Header) Check(docType string) error { return h.validate(docType) }

// CheckText refuses text of a document, called what in the error, with fewer bytes than least or more than most, with controls, or with what people would not
// see.
func (h *Header) CheckText(what, text string, least, most int) error {
	if len(text) < least || len(text) > most || !legible(text) {
		return fmt.Errorf("%w: %s: %s has %d to %d bytes, no controls and nothing invisible", ErrMalformed, h.Type, what, least, most)
	}
	return nil
}
