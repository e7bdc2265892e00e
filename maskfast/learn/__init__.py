"""Floor 4: from the items table to a trained fastai Learner; the only folder whose files import fastai at the top."""
